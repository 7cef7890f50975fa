"""A live change feed for Django: PostgreSQL triggers tell, Channels consumers push."""

from __future__ import annotations

__version__ = "0.1.0"
