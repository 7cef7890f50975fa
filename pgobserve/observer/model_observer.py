"""DCRF's name of the module that has :class:`ModelObserver`."""

from __future__ import annotations

from pgobserve.events.model_events import ModelObserver as ModelObserver
