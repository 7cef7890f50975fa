"""
Notices when the groups of a deleted row are read from rows that referred to it.

These were deleted with it, or point elsewhere now, so the groups that they stood for are not found.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db import connections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import Model


class LostReferences:
    """
    Watches the queries of the current thread.

    Args:
        instance: The deleted row.

    Attributes:
        read: Whether a query looked for rows that refer to the deleted row.
    """

    def __init__(self, instance: Model) -> None:
        self.read = False
        self._tables = _referring(type(instance))
        self._values = {str(value) for value in instance.__dict__.values() if value is not None}

        def look(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
            given = params if isinstance(params, list | tuple) else ()
            self.read = self.read or (
                any(table in str(sql) for table in self._tables)
                and not self._values.isdisjoint(map(str, given))
            )
            return execute(sql, params, many, context)

        self._look = look

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the queries of the block."""
        lists = [connections[alias].execute_wrappers for alias in connections]
        for wrappers in lists:
            wrappers.append(self._look)
        try:
            yield
        finally:
            for wrappers in lists:
                wrappers.remove(self._look)


@lru_cache(maxsize=1024)
def _referring(model: type[Model]) -> frozenset[str]:
    """Return the quoted names of the tables whose rows may refer to rows of a model."""
    options: Any = model._meta
    to_many = [*options.many_to_many, *(each.field for each in options.related_objects)]
    found = {each.remote_field.through if each.many_to_many else each.model for each in to_many} | {
        each.related_model for each in options.private_fields if each.related_model
    }
    return frozenset(f'"{each._meta.db_table}"' for each in found)
