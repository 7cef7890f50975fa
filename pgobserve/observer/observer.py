"""DCRF's name of the module that has :class:`Observer`."""

from __future__ import annotations

from pgobserve.event_handlers.signal_observer import Observer as Observer
