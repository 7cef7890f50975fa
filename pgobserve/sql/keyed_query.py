"""
A queryset that is compiled once and run for many sets of keys.

Compiling a queryset costs more than running it. So its SQL is kept, with the keys as the only parameter;
the server can keep its plan, too. Each answer carries the snapshot in which it was read.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import psycopg
from django.db.models import BooleanField, Expression, F
from django.db.models.query import ModelIterable, QuerySet

from pgobserve.database.server_identity import RUN
from pgobserve.database.session import session_of
from pgobserve.database.tracked_session import is_plain_read
from pgobserve.errors import ConfigurationError
from pgobserve.hub.snapshot import Snapshot
from pgobserve.sql.columns import declared, forget
from pgobserve.sql.key_sql import (
    NOT_TAKEN,
    any_of,
    identified,
    key_positions,
    key_types,
    unknown_keys,
)
from pgobserve.sql.keys import arrays, key_fields
from pgobserve.sql.literals import Keys, for_each, inline
from pgobserve.sql.row_instances import has_own_rows, has_own_values, instances_of, key_read

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from django.db import models
    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.sql.columns import Column
    from pgobserve.sql.keys import Model

    Instances = dict[Hashable, models.Model]
    Rows = list[tuple[Any, ...]]

#: Executions after which psycopg keeps a statement prepared.
PREPARE_AFTER: Final = 2

#: "cached plan must not change result type", or a prepared statement is missing, or exists already.
STALE: Final = (
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.InvalidSqlStatementName,
    psycopg.errors.DuplicatePreparedStatement,
)

#: For `Snapshot.parse`. Operators take equal types or are qualified, because another role's operator in
#: ``public`` might fit mixed types better than PostgreSQL's.
SNAPSHOT: Final = f"pg_catalog.pg_current_snapshot()::text || '@' || {RUN}::text"
_WITH_SNAPSHOT: Final = f"SELECT {SNAPSHOT}, q.* FROM ({{}}) q"  # noqa: S608
_WITH_SNAPSHOT_ALWAYS: Final = (
    f"SELECT {SNAPSHOT}, q.* FROM (VALUES (1)) AS one LEFT JOIN ({{}}) q ON TRUE"  # noqa: S608
)


class _KeyIsAny(Expression):
    """``pk = ANY(keys)``, for a composite key ``(a, b) IN (SELECT …)``. The keys are texts."""

    conditional = True

    def __init__(self, model: Model, types: Sequence[Column]) -> None:
        super().__init__(output_field=BooleanField())
        self.columns: list[Any] = [F(field.attname) for field in key_fields(model)]
        self.types = types

    def get_source_expressions(self) -> list[Any]:
        return self.columns

    def set_source_expressions(self, exprs: Sequence[Any]) -> None:
        self.columns = list(exprs)

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:  # type: ignore[override]
        columns, params = [], []
        for column in self.columns:
            text, own = compiler.compile(column)
            columns.append(text)
            params += own
        condition = any_of(columns, self.types)
        return condition, [*params, *(Keys() for _ in self.types)]


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A query for the types that its key has."""

    types: tuple[Column, ...]
    compiler: Any
    template: str
    params: Sequence[Any]
    text: str
    at: list[int]
    identified: str


class KeyedQuery:
    """
    A compiled queryset that takes keys.

    Args:
        queryset: Yields model instances; neither sliced nor a union.
        connection: A connection of its alias, which decides how literals are written.

    Attributes:
        text: The SQL with everything but the keys. Equal texts read the same rows.
        plain: The query calls nothing that may change the session.
        shape: Queries of equal shape can be combined by ``UNION ALL``.

    Raises:
        ConfigurationError: The queryset's rows can't be read by key.
    """

    def __init__(self, queryset: QuerySet[Any], connection: BaseDatabaseWrapper) -> None:
        check(queryset)
        model: Model = queryset.model
        self.model = model
        self._unkeyed = queryset
        types = tuple(declared(field, connection) for field in key_fields(model))
        compiled = self._now = self._compile(types, connection)
        self.text = compiled.text
        columns = tuple((column[1][0], column[2]) for column in compiled.compiler.select)
        self.plain = is_plain_read(compiled.template)
        # A query with set_config() is never combined: it would set values for the others.
        self.shape = (self.model, columns, "set_config" in compiled.template and self.text)

    def _compile(self, types: tuple[Column, ...], connection: BaseDatabaseWrapper) -> _Compiled:
        keyed = self._unkeyed.filter(_KeyIsAny(self.model, types))
        if not keyed.query.distinct_fields:
            keyed = keyed.order_by()
        self._queryset: Any = keyed.using(connection.alias)
        # elide_empty=False: none() must compile as well, to a query that finds no row.
        compiler = self._queryset.query.get_compiler(using=connection.alias, elide_empty=False)
        text, params = compiler.as_sql()
        filled = inline(text, params, connection)
        at = key_positions(compiler, self.model)
        whole = identified(filled, at, types)
        return _Compiled(types, compiler, text, params, filled, at, whole)

    def at(self, types: tuple[Column, ...], connection: BaseDatabaseWrapper) -> _Compiled:
        """Return the query for columns of some types."""
        if self._now.types != types:
            self._now = self._compile(types, connection)
        return self._now

    def fetch(
        self, keys: Sequence[Any], connection: BaseDatabaseWrapper
    ) -> tuple[Snapshot, Instances]:
        """Read the queryset's rows with these keys, as :func:`fetch_many` does for several queries."""
        found = fetch_many([(self, keys)], connection)
        return found.snapshot, found.instances[0]

    @property
    def bare(self) -> bool:
        """Whether an instance depends on nothing but its row."""
        queryset = self._queryset
        related = queryset.query.select_related or queryset._prefetch_related_lookups
        own = has_own_rows(queryset) or has_own_values(queryset)
        return not (related or queryset._known_related_objects or own)

    def _instances(self, rows: Rows) -> list[models.Model]:
        return instances_of(self._queryset, self._now.compiler, rows)


def check(queryset: QuerySet[Any]) -> None:
    """
    Refuse a queryset that can't be watched.

    Raises:
        ConfigurationError: A row's key does not determine what the queryset has of the row.
    """
    label = queryset.model._meta.label
    if not issubclass(getattr(queryset, "_iterable_class", object), ModelIterable):
        raise ConfigurationError(
            f"The queryset of {label} yields no model instances (values(), values_list() or "
            "raw()?). Only instances can be serialized and watched."
        )
    if queryset.query.is_sliced or queryset.query.combinator:
        raise ConfigurationError(
            f"The queryset of {label} is sliced, or a union. Keys do not determine which rows it has, so "
            "its rows can't be watched. Use filter() instead."
        )
    windows = [a for a in queryset.query.annotations.values() if a.contains_over_clause]
    if queryset.query.distinct_fields or windows:
        raise ConfigurationError(
            f"The queryset of {label} has distinct() on fields, or a window function. Its rows "
            "depend on other rows, so they can't be watched one by one. Use a subquery (Exists, "
            "OuterRef) instead."
        )


@dataclass(frozen=True, slots=True)
class Fetched:
    """
    What a load has read.

    Attributes:
        snapshot: The snapshot of the read.
        instances: For each query, its instances by key. Queries that find the same row with the same
            values may share its instance.
        unknown: Keys that no row of the table can have.
    """

    snapshot: Snapshot
    instances: list[Instances]
    unknown: frozenset[str] = frozenset()


def fetch_many(
    wanted: Sequence[tuple[KeyedQuery, Sequence[Any]]], connection: BaseDatabaseWrapper
) -> Fetched:
    """
    Read for several queries of one shape in one statement.

    Args:
        wanted: The queries, each with its keys; at least one.
        connection: A connection of their alias.
    """
    model = wanted[0][0].model
    rows, unknown = _read_known(model, wanted, connection)
    if not all(query.plain for query, _ in wanted):
        session_of(connection).mark_changed()
    snapshot = Snapshot.parse(rows[0][0])
    parts: list[Rows] = [[] for _ in wanted]
    for row in rows:
        if row[1] is not None:
            parts[row[1]].append(row[2:])
    instances = _instances_by_key([query for query, _ in wanted], parts, connection)
    return Fetched(snapshot, instances, unknown)


def _read_known(
    model: Model,
    wanted: Sequence[tuple[KeyedQuery, Sequence[Any]]],
    connection: BaseDatabaseWrapper,
) -> tuple[Rows, frozenset[str]]:
    """Read, without the keys that PostgreSQL doesn't take for values of their columns; return those, too."""
    types = key_types(model, connection)
    try:
        return _read(wanted, connection, types), frozenset()
    except (_Changed, *NOT_TAKEN):
        # The table may have been altered. Otherwise a key is to blame, or the queryset.
        forget(model._meta.db_table, connection.alias)
        keys = [*dict.fromkeys(chain.from_iterable(keys for _, keys in wanted))]
        unknown = frozenset(unknown_keys(model, keys, connection))
        now = key_types(model, connection)
        if not unknown and now == types:
            raise
        known = [(query, [k for k in keys if k not in unknown]) for query, keys in wanted]
        return _read(known, connection, now), unknown


class _Changed(Exception):
    """The key's columns have other types than their table had when its catalog entries were read."""


def _read(
    wanted: Sequence[tuple[KeyedQuery, Sequence[Any]]],
    connection: BaseDatabaseWrapper,
    types: tuple[Column, ...],
) -> Rows:
    """Return rows of the snapshot, the number of the query, the query's columns, and the key."""
    params = [arrays(keys, len(types)) for _, keys in wanted]
    queries = [query.at(types, connection) for query, _ in wanted]
    at = queries[0].at
    params = [
        each * (sum(isinstance(p, Keys) for p in query.params) // len(types))
        for each, query in zip(params, queries, strict=True)
    ]
    run = partial(_execute, connection=connection, types=types, at=[2 + n for n in at])
    if len(wanted) > 1 and len({query.template for query in queries}) == 1:
        template = identified(queries[0].template, at, types)
        text = for_each(template, [q.params for q in queries], params, connection)
        # A literal's type in a list may differ from its type in the query; then UNION ALL serves.
        with suppress(*NOT_TAKEN):
            if text is not None:
                # Few of the queries may have the row, so the snapshot comes with the first answer.
                return run(_WITH_SNAPSHOT_ALWAYS.format(text), [], prepare=False)
    branches = " UNION ALL ".join(
        f"SELECT {number}, r.* FROM ({query.identified}) r"  # noqa: S608 (compiled by the ORM)
        for number, query in enumerate(queries)
    )
    flat = list(chain.from_iterable(params))
    prepare = None if len(wanted) == 1 else False
    rows = run(_WITH_SNAPSHOT.format(branches), flat, prepare=prepare)
    # An empty answer needs a snapshot as well. Its join costs time, so only then.
    return rows or run(_WITH_SNAPSHOT_ALWAYS.format(branches), flat, prepare=prepare)


def _instances_by_key(
    queries: Sequence[KeyedQuery], parts: Sequence[Rows], connection: BaseDatabaseWrapper
) -> list[Instances]:
    if len(queries) > 1 and all(query.bare for query in queries):
        with suppress(TypeError):  # JSON and arrays have no hash
            distinct = list(dict.fromkeys(chain.from_iterable(parts)))
            instances = queries[0]._instances(distinct)
            known = {
                row: (key_read(instance, connection), instance)
                for row, instance in zip(distinct, instances, strict=True)
            }
            return [dict(known[row] for row in part) for part in parts]
    return [
        {key_read(instance, connection): instance for instance in query._instances(part)}
        for query, part in zip(queries, parts, strict=True)
    ]


def _execute(
    text: str,
    params: list[list[Any]],
    *,
    connection: BaseDatabaseWrapper,
    types: Sequence[Column],
    at: Sequence[int],
    prepare: bool | None,
) -> Rows:
    """Run with server-side binding, which Django's own cursors do not use by default."""
    run = partial(_run, text, params, connection, types, at)
    with connection.wrap_database_errors:
        try:
            return run(prepare)
        except STALE:
            # The table was altered, or a proxy switched the session: psycopg's record of prepared
            # statements is wrong. A new connection has an empty record.
            connection.close()
            return run(False)


def _run(
    text: str,
    params: list[list[Any]],
    connection: BaseDatabaseWrapper,
    types: Sequence[Column],
    at: Sequence[int],
    prepare: bool | None,
) -> Rows:
    session = session_of(connection)
    raw: psycopg.Connection[Any] = connection.connection
    # Behind a transaction-pooling proxy, which this setting of Django's indicates, a session's prepared
    # statements get lost.
    if raw.prepare_threshold is None and not connection.settings_dict.get(
        "DISABLE_SERVER_SIDE_CURSORS"
    ):
        raw.prepare_threshold = PREPARE_AFTER
    with psycopg.Cursor(raw) as cursor:
        session.execute(connection, partial(cursor.execute, prepare=prepare), text, params)
        result = cursor.pgresult
        for column, number in zip(types, at, strict=True):
            if column.oid and result is not None and result.ftype(number) != column.oid:
                raise _Changed
        return cursor.fetchall()
