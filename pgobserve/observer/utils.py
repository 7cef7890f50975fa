"""DCRF's name of what binds an observer to a consumer."""

from __future__ import annotations

from pgobserve.event_handlers.observer_base import BoundObserver as ObjPartial

__all__ = ["ObjPartial"]
