"""Counts what a server process does for a change."""

from __future__ import annotations

from collections import Counter
from typing import Any

import psycopg

counters: Counter[str] = Counter()


def count_queries() -> None:
    """Count every query of the synchronous connections, whoever runs it."""
    execute = psycopg.Cursor.execute

    def counted(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        counters["queries"] += 1
        return execute(self, query, *args, **kwargs)

    psycopg.Cursor.execute = counted  # type: ignore[method-assign]
