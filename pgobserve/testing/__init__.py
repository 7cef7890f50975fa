"""Helpers for your own tests."""

from __future__ import annotations

from pgobserve.testing.capture import Captured, Changes, capture_changes

__all__ = ["Captured", "Changes", "capture_changes"]
