"""Whether hooks asked the database while they chose a queryset: what they found may be another soon."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import connections

if TYPE_CHECKING:
    from collections.abc import Iterator


class QueryRecorder:
    """
    Counts the queries of the present thread, on any alias.

    Attributes:
        queries: How many there were.
    """

    def __init__(self) -> None:
        self.queries = 0
        self._counts = True

        def count(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
            self.queries += self._counts
            return execute(sql, params, many, context)

        count.of_pgobserve = True  # type: ignore[attr-defined]
        self._count = count

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what runs within."""
        # Not by execute_wrapper(), which at the end takes away the last one, whosever it is.
        lists = [connections[alias].execute_wrappers for alias in connections]
        for wrappers in lists:
            wrappers.insert(0, self._count)
        try:
            yield
        finally:
            for wrappers in lists:
                if self._count in wrappers:
                    wrappers.remove(self._count)

    @contextmanager
    def ignoring(self) -> Iterator[None]:
        """Do not count what runs within: the queryset does not depend on it."""
        self._counts = False
        try:
            yield
        finally:
            self._counts = True
