"""DCRF's name of the module that has :class:`Observer`."""

from __future__ import annotations

from pgobserve.observer.signal import Observer as Observer
