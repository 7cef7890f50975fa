"""Helpers for projects' tests."""

from __future__ import annotations

from pgobserve.testing.capture import Captured, Changes, capture_changes
from pgobserve.testing.closing import close_feeds

__all__ = ["Captured", "Changes", "capture_changes", "close_feeds"]
