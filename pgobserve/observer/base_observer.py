"""DCRF's name of the module that has :class:`BaseObserver`."""

from __future__ import annotations

from pgobserve.event_handlers.observer_base import BaseObserver as BaseObserver
