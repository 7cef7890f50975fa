"""Whether hooks queried the database to choose a queryset: their answers may change."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import connections

if TYPE_CHECKING:
    from collections.abc import Iterator


class QueryRecorder:
    """
    Counts the queries of the current thread, on all aliases.

    Attributes:
        queries: The number so far.
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
        """Count the queries of the block."""
        # Not execute_wrapper(): it removes the last wrapper at the end, also if a hook has added it.
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
        """Exempt the queries of the block: the queryset does not depend on them."""
        self._counts = False
        try:
            yield
        finally:
            self._counts = True
