"""DCRF's name of the module that has :class:`ModelObserver` and :class:`Action`."""

from __future__ import annotations

from pgobserve._former_names import resolver
from pgobserve.event_handlers.model_events import ModelObserver
from pgobserve.outbox.event import EventAction as Action

__all__ = ["Action", "ModelObserver", "UnsupportedWarning"]


class UnsupportedWarning(Warning):
    """A warning of DCRF's that projects filter; nothing warns of it here."""


class ModelObserverInstanceState:
    """DCRF's name; observers keep nothing on instances here."""


__getattr__ = resolver(__name__)
