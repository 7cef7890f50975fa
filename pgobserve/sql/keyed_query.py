"""
A queryset that is compiled once and run for many sets of keys.

Compiling a queryset costs more than running it. So its SQL is kept, with the keys as the only parameter;
the server can keep its plan, too. Each answer carries the snapshot in which it was read.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import psycopg
from django.db import DataError, ProgrammingError
from django.db.models import BooleanField, Expression, F
from django.db.models.query import ModelIterable, QuerySet

from pgobserve.database.server_identity import RUN
from pgobserve.database.session import session_of
from pgobserve.database.tracked_session import is_plain_read
from pgobserve.errors import ConfigurationError
from pgobserve.hub.snapshot import Snapshot
from pgobserve.sql.keys import array_types, as_parameters, key_fields, key_of
from pgobserve.sql.literals import Keys, for_each, inline
from pgobserve.sql.own_rows import has_own_rows, has_own_values
from pgobserve.sql.row_instances import instances_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from django.db import models
    from django.db.backends.base.base import BaseDatabaseWrapper

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
    """``pk = ANY(keys)``, for a composite key ``(a, b) IN (SELECT unnest(…))``."""

    conditional = True

    def __init__(self, model: Model, types: Sequence[str]) -> None:
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
        arrays = [f"%s::{name}" for name in self.types]
        params += [Keys() for _ in arrays]
        if len(columns) == 1:
            return f"{columns[0]} = ANY({arrays[0]})", params
        rows = f"SELECT * FROM unnest({', '.join(arrays)})"  # noqa: S608 (of placeholders)
        return f"({', '.join(columns)}) IN ({rows})", params


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
        self.model: Model = queryset.model
        types = array_types(self.model, connection)
        keyed = queryset.filter(_KeyIsAny(self.model, types))
        if not keyed.query.distinct_fields:
            keyed = keyed.order_by()
        self._queryset: Any = keyed.using(connection.alias)
        # elide_empty=False: none() must compile as well, to a query that finds no row.
        self._compiler = self._queryset.query.get_compiler(
            using=connection.alias, elide_empty=False
        )
        text, params = self._compiler.as_sql()
        self._template, self._params = text, params
        self.text = inline(text, params, connection)
        self._arrays = sum(isinstance(param, Keys) for param in params) // len(types)
        columns = tuple((column[1][0], column[2]) for column in self._compiler.select)
        self.plain = is_plain_read(text)
        # A query with set_config() is never combined: it would set values for the others.
        self.shape = (self.model, columns, "set_config" in text and self.text)

    def fetch(
        self, keys: Sequence[Hashable], connection: BaseDatabaseWrapper
    ) -> tuple[Snapshot, Instances]:
        """Read the queryset's rows with these keys, as :func:`fetch_many` does for several queries."""
        snapshot, (instances,) = fetch_many([(self, keys)], connection)
        return snapshot, instances

    @property
    def bare(self) -> bool:
        """Whether an instance depends on nothing but its row."""
        queryset = self._queryset
        related = queryset.query.select_related or queryset._prefetch_related_lookups
        own = has_own_rows(queryset) or has_own_values(queryset)
        return not (related or queryset._known_related_objects or own)

    def _parameters(
        self, keys: Sequence[Hashable], connection: BaseDatabaseWrapper
    ) -> list[list[Any]]:
        return as_parameters(self.model, keys, connection) * self._arrays

    def _instances(self, rows: Rows) -> list[models.Model]:
        return instances_of(self._queryset, self._compiler, rows)


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


def fetch_many(
    wanted: Sequence[tuple[KeyedQuery, Sequence[Hashable]]], connection: BaseDatabaseWrapper
) -> tuple[Snapshot, list[Instances]]:
    """
    Read for several queries of one shape in one statement.

    Args:
        wanted: The queries, each with its keys; at least one.
        connection: A connection of their alias.

    Returns:
        The snapshot, and each query's instances by key. Queries that find the same row with the same
        values may share its instance.
    """
    rows = _read(wanted, connection)
    if not all(query.plain for query, _ in wanted):
        session_of(connection).mark_changed()
    snapshot = Snapshot.parse(rows[0][0])
    parts: list[Rows] = [[] for _ in wanted]
    for row in rows:
        if row[1] is not None:
            parts[row[1]].append(row[2:])
    return snapshot, _instances_by_key([query for query, _ in wanted], parts)


def _read(
    wanted: Sequence[tuple[KeyedQuery, Sequence[Hashable]]], connection: BaseDatabaseWrapper
) -> Rows:
    """Return rows of the snapshot, the number of the query, and the query's columns."""
    params = [query._parameters(keys, connection) for query, keys in wanted]
    queries = [query for query, _ in wanted]
    if len(wanted) > 1 and len({query._template for query in queries}) == 1:
        text = for_each(queries[0]._template, [q._params for q in queries], params, connection)
        # A literal's type in a list may differ from its type in the query; then UNION ALL serves.
        with suppress(ProgrammingError, DataError):
            if text is not None:
                # Few of the queries may have the row, so the snapshot comes with the first answer.
                return _execute(_WITH_SNAPSHOT_ALWAYS.format(text), [], connection, False)
    branches = " UNION ALL ".join(
        f"SELECT {number}, r.* FROM ({query.text}) r"  # noqa: S608 (compiled by the ORM)
        for number, query in enumerate(queries)
    )
    flat = list(chain.from_iterable(params))
    prepare = None if len(wanted) == 1 else False
    rows = _execute(_WITH_SNAPSHOT.format(branches), flat, connection, prepare)
    # An empty answer needs a snapshot as well. Its join costs time, so only then.
    return rows or _execute(_WITH_SNAPSHOT_ALWAYS.format(branches), flat, connection, prepare)


def _instances_by_key(queries: Sequence[KeyedQuery], parts: Sequence[Rows]) -> list[Instances]:
    if len(queries) > 1 and all(query.bare for query in queries):
        with suppress(TypeError):  # JSON and arrays have no hash
            distinct = list(dict.fromkeys(chain.from_iterable(parts)))
            instances = queries[0]._instances(distinct)
            known = {
                row: (key_of(instance), instance)
                for row, instance in zip(distinct, instances, strict=True)
            }
            return [dict(known[row] for row in part) for part in parts]
    return [
        {key_of(instance): instance for instance in query._instances(part)}
        for query, part in zip(queries, parts, strict=True)
    ]


def _execute(
    text: str, params: list[list[Any]], connection: BaseDatabaseWrapper, prepare: bool | None
) -> Rows:
    """Run with server-side binding, which Django's own cursors do not use by default."""
    with connection.wrap_database_errors:
        try:
            return _run(text, params, connection, prepare)
        except STALE:
            # The table was altered, or a proxy switched the session: psycopg's record of prepared
            # statements is wrong. A new connection has an empty record.
            connection.close()
            return _run(text, params, connection, False)


def _run(
    text: str, params: list[list[Any]], connection: BaseDatabaseWrapper, prepare: bool | None
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
        return cursor.fetchall()
