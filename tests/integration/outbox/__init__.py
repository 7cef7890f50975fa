"""The read side of the outbox, on a real database."""

from __future__ import annotations
