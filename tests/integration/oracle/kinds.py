"""Consumers of every kind."""

from __future__ import annotations

from tests.integration.oracle import (
    kinds_of_contexts,
    kinds_of_looks,
    kinds_of_permissions,
    kinds_of_rows,
    kinds_of_sessions,
)
from tests.integration.oracle.kind import KINDS

__all__ = [
    "KINDS",
    "kinds_of_contexts",
    "kinds_of_looks",
    "kinds_of_permissions",
    "kinds_of_rows",
    "kinds_of_sessions",
]
