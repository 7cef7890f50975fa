"""DCRF's name of the module that has :class:`BaseObserver`."""

from __future__ import annotations

from pgobserve._former_names import resolver
from pgobserve.event_handlers.observer_base import BaseObserver as BaseObserver

__getattr__ = resolver(__name__)
