"""Which rows look different since a token: by their versions, and what was noted of other tables."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from pgobserve import conf
from pgobserve.dependencies.relations import concrete, join_along
from pgobserve.outbox import outbox_page
from pgobserve.outbox.since import entries_since
from pgobserve.sql.installed import is_observed
from pgobserve.sql.model_tables import labels_of
from pgobserve.sql.reverse_lookup import resolve
from pgobserve.sql.versions import newest, newest_definition

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.hub.snapshot import Snapshot
    from pgobserve.outbox.outbox_page import OutboxRecord
    from pgobserve.sql.keys import Model
    from pgobserve.sql.relation_path import Join, RelationPath


class Record:
    """
    What the outbox has of the time since some snapshots; read once for each, in one transaction.

    Args:
        now: The transaction's snapshot.
        connection: Of the database alias.
    """

    def __init__(self, now: Snapshot, connection: BaseDatabaseWrapper) -> None:
        self._now = now
        self._connection = connection
        self._namespace = conf.namespace(connection.alias)
        self._since: dict[tuple[Snapshot, str], Sequence[OutboxRecord] | None] = {}
        self._made: dict[str, int | None] = {}

    def reaches(self, table: str, seen: Snapshot) -> bool:
        """Tell whether all that was done to a table since a snapshot was noted."""
        if table not in self._made:
            self._made[table] = (
                newest_definition(table, self._now, self._connection, triggers=True)
                if is_observed(table, self._connection, namespace=self._namespace, outbox=True)
                else None
            )
        made = self._made[table]
        return made is not None and made < seen.xmin

    def since(self, seen: Snapshot, table: str) -> Sequence[OutboxRecord] | None:
        """Return what was done to a table since a snapshot; None if that can't be told."""
        if not self.reaches(table, seen):
            return None
        if (seen, table) not in self._since:
            self._since[seen, table] = entries_since(
                seen, labels_of(table), self._connection, self._namespace
            )
        return self._since[seen, table]


class Changed:
    """
    What of some rows is new; the database is asked once for all tokens.

    Args:
        model: The rows' model.
        paths: The ways to other tables that they show something of.
        wide: Tables of which any change concerns all of them.
        keys: The rows' keys.
        now: In which they were read; the transaction is still the same.
        connection: Of the database alias.
    """

    def __init__(
        self,
        model: Model,
        paths: Sequence[RelationPath],
        wide: Sequence[str],
        keys: Sequence[Hashable],
        now: Snapshot,
        connection: BaseDatabaseWrapper,
    ) -> None:
        self.record = Record(now, connection)
        self._model = concrete(model)
        self._paths = paths
        self._wide = wide
        self._keys = keys
        self._now = now
        self._connection = connection
        self._since: dict[Snapshot, set[Hashable] | None] = {}

    def since(self, seen: Snapshot) -> set[Hashable] | None:
        """Return the keys of the rows that may look different since a snapshot; None: any may."""
        if seen not in self._since:
            self._since[seen] = self._looked_up(seen)
        return self._since[seen]

    def _looked_up(self, seen: Snapshot) -> set[Hashable] | None:
        # A table that was made anew, filled by somebody else, say, and renamed.
        if self._newest_definition >= seen.xmin:
            return None
        changed = {key for key in self._keys if self._newest.get(key, seen.xmin) >= seen.xmin}
        for table in self._wide:
            if self.record.since(seen, table) != ():
                return None
        for path in self._paths:
            if path.route is not None:
                moved = self._moved(path, seen)
                if moved is None:
                    return None
                changed |= moved
        return changed

    def _moved(self, path: RelationPath, seen: Snapshot) -> set[Hashable] | None:
        """Return the keys of rows from which others of a table were taken, or to which they came."""
        entries = self.record.since(seen, path.table)
        if entries is None or path.column is None:
            return None
        values: dict[object, None] = {}
        for entry in entries:
            told = None if entry.keys is None else outbox_page.values(entry, [path.column])
            if told is None or path.column not in told:
                return None
            values.update(dict.fromkeys(told[path.column]))
        found = resolve(path, list(values), self._connection, among=self._keys)
        return None if found is None else set(found)

    @cached_property
    def _newest(self) -> dict[Hashable, int]:
        """By key the transaction that was the last to write what is shown of a row."""
        found: dict[Hashable, int] = {}
        for joins, refers in self._ways():
            versions = newest(
                self._model, joins, self._keys, self._now, self._connection, refers=refers
            )
            for key, xid in versions.items():
                found[key] = max(xid, found.get(key, 0))
        return found

    def _ways(self) -> Iterator[tuple[tuple[Join, ...], bool]]:
        """Yield the ways to all tables, and whether the rows there must be there."""
        yield (), False
        for parent in self._model._meta.get_parent_list():
            infos = self._model._meta.get_path_to_parent(parent)
            yield tuple(join_along(info.join_field) for info in infos), True
        for path in self._paths:
            yield path.joins, path.route is None

    @cached_property
    def _newest_definition(self) -> int:
        models = [joins[-1].model if joins else self._model for joins, _ in self._ways()]
        return max(
            newest_definition(table, self._now, self._connection)
            for table in dict.fromkeys(model._meta.db_table for model in models)
        )
