"""DCRF's name of the module that has :class:`ModelObserver` and :class:`Action`."""

from __future__ import annotations

from pgobserve.event_handlers.model_events import ModelObserver
from pgobserve.outbox.event import EventAction as Action

__all__ = ["Action", "ModelObserver"]
