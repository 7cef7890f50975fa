"""From a table to what its changes may concern."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from pgobserve.hub.table_dependencies import TableDependencies, TablePath


class DependencyIndex:
    """
    The watched subjects, by the tables that concern them.

    Attributes:
        keyed: By tables in which rows have the same keys.
        full_refresh: By tables of which any change concerns all rows.
        linked: By tables from which links lead back.
    """

    def __init__(self) -> None:
        # Dictionaries for their order.
        self.keyed: dict[str, dict[TableDependencies, None]] = {}
        self.full_refresh: dict[str, dict[TableDependencies, None]] = {}
        self.linked: dict[str, dict[tuple[TableDependencies, TablePath], None]] = {}

    def __contains__(self, table: str) -> bool:
        """Tell whether a change of the table can concern anything."""
        return table in self.keyed or table in self.full_refresh or table in self.linked

    def tables(self) -> list[str]:
        """Return the tables whose changes concern anything."""
        return list({**self.keyed, **self.full_refresh, **self.linked})

    def routes(self) -> dict[str, set[str]]:
        """Return the columns whose values lead back, by table."""
        found: dict[str, set[str]] = {}
        for table, entries in self.linked.items():
            if columns := {path.column for _, path in entries if path.column is not None}:
                found[table] = columns
        return found

    def add(self, subject: TableDependencies) -> None:
        """Take up a subject."""
        _add(self.keyed, subject.tables, subject)
        _add(self.full_refresh, subject.full_refresh, subject)
        for path in subject.paths:
            _add(self.linked, [path.table], (subject, path))

    def remove(self, subject: TableDependencies) -> None:
        """Forget a subject."""
        _remove(self.keyed, subject.tables, subject)
        _remove(self.full_refresh, subject.full_refresh, subject)
        for path in subject.paths:
            _remove(self.linked, [path.table], (subject, path))


def _add(index: dict[str, dict[Any, None]], tables: Iterable[str], entry: Hashable) -> None:
    for table in tables:
        index.setdefault(table, {})[entry] = None


def _remove(index: dict[str, dict[Any, None]], tables: Iterable[str], entry: Hashable) -> None:
    for table in tables:
        entries = index.get(table, {})
        entries.pop(entry, None)
        if not entries:
            index.pop(table, None)
