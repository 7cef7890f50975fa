"""DCRF's name of the module that has :class:`Observer`."""

from __future__ import annotations

from pgobserve._former_names import resolver
from pgobserve.event_handlers.signal_observer import Observer as Observer

__getattr__ = resolver(__name__)
