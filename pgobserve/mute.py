"""Load much without telling each change: ``from pgobserve.mute import muted``."""

from __future__ import annotations

from pgobserve.triggers.mute import announce, muted

__all__ = ["announce", "muted"]
