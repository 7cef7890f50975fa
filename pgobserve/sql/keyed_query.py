"""
A queryset compiled once, run for many sets of keys: the statement that reads watched rows.

Compiling a queryset costs more than running it. So its SQL is kept, with the keys as the only
parameter, which lets the server keep the plan as well. Each answer carries the snapshot it was
read in, even if there is no row.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import psycopg
from django.db import DataError, ProgrammingError
from django.db.models import BooleanField, Expression, F
from django.db.models.query import ModelIterable, QuerySet, prefetch_related_objects

from pgobserve.database.plain_reads import is_plain_read
from pgobserve.database.server_identity import RUN
from pgobserve.database.session import session_of
from pgobserve.errors import ConfigurationError
from pgobserve.hub.snapshot import Snapshot
from pgobserve.sql.keys import (
    array_types,
    as_parameters,
    key_fields,
    key_of,
)
from pgobserve.sql.literals import Keys, for_each, inline
from pgobserve.sql.own_rows import has_own_rows, has_own_values, own_rows

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from django.db import models
    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.sql.keys import Model

#: Executions after which psycopg keeps a statement prepared.
PREPARE_AFTER: Final = 2

#: "cached plan must not change result type", and a prepared statement that is not, or is already there.
STALE: Final = (
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.InvalidSqlStatementName,
    psycopg.errors.DuplicatePreparedStatement,
)

#: As `Snapshot.parse` reads it. Operators take equal types, or are qualified: one of another role's might
#: fit mixed types better.
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
        listed = f"SELECT * FROM unnest({', '.join(arrays)})"  # noqa: S608 (of placeholders)
        return f"({', '.join(columns)}) IN ({listed})", params


class KeyedQuery:
    """
    A compiled queryset that takes keys.

    Args:
        queryset: Of model instances; not sliced, not a union.
        connection: Of its database alias; literals are written as this connection writes them.

    Attributes:
        text: The SQL with everything but the keys in it. Equal texts read the same rows, so it
            identifies the queryset.
        plain: It calls nothing that may change the session, as far as its text shows.
        shape: What two statements must share to be answered by one ``UNION ALL``.

    Raises:
        ConfigurationError: The queryset does not yield model instances, or is sliced or a union,
            so that its rows can't be read by key.
    """

    def __init__(self, queryset: QuerySet[Any], connection: BaseDatabaseWrapper) -> None:
        check(queryset)
        self.model: Model = queryset.model
        types = array_types(self.model, connection)
        keyed = queryset.filter(_KeyIsAny(self.model, types))
        if not keyed.query.distinct_fields:
            keyed = keyed.order_by()
        compiled: Any = keyed.using(connection.alias)
        self._queryset = compiled
        self._prefetches: tuple[Any, ...] = tuple(compiled._prefetch_related_lookups)
        # none() is a queryset as well; it must compile, to something that finds nothing.
        self._compiler = self._queryset.query.get_compiler(
            using=connection.alias, elide_empty=False
        )
        text, params = self._compiler.as_sql()
        self._template, self._params = text, params
        self.text = inline(text, params, connection)
        self._arrays = sum(isinstance(param, Keys) for param in params) // len(types)
        columns = tuple((column[1][0], column[2]) for column in self._compiler.select)
        self.plain = is_plain_read(text)
        # What one of them sets while it is read, another would be read with.
        self.shape = (self.model, columns, "set_config" in text and self.text)

    def fetch(
        self, keys: Sequence[Hashable], connection: BaseDatabaseWrapper
    ) -> tuple[Snapshot, dict[Hashable, models.Model]]:
        """
        Read the rows of these keys that the queryset contains.

        Returns:
            The snapshot, and the instances by key, related objects prefetched.
        """
        snapshot, (found,) = fetch_many([(self, keys)], connection)
        return snapshot, found

    @property
    def joins(self) -> bool:
        """Whether rows of other tables come with the instances."""
        query = self._queryset.query
        return bool(query.select_related or self._prefetches)

    @property
    def bare(self) -> bool:
        """Whether an instance is what its row says: nothing was added by who made the queryset."""
        compiled = self._queryset
        own = has_own_rows(compiled) or has_own_values(compiled)
        return not (self.joins or compiled._known_related_objects or own)

    def _parameters(
        self, keys: Sequence[Hashable], connection: BaseDatabaseWrapper
    ) -> list[list[Any]]:
        return as_parameters(self.model, keys, connection) * self._arrays

    def _instances(self, rows: list[tuple[Any, ...]]) -> list[models.Model]:
        return instances_of(self._queryset, self._compiler, rows)


def instances_of(queryset: Any, compiler: Any, rows: list[tuple[Any, ...]]) -> list[models.Model]:
    """Return the instances that a compiled queryset makes of rows, related objects prefetched."""
    filled: Any = _Filled(queryset, compiler, rows)
    if has_own_rows(queryset):
        return own_rows(queryset, lambda iterable_class: iterable_class(filled))
    instances: list[models.Model] = list(ModelIterable(filled))
    if queryset._prefetch_related_lookups and instances:
        prefetch_related_objects(instances, *queryset._prefetch_related_lookups)
    return instances


def check(queryset: QuerySet[Any]) -> None:
    """
    Refuse a queryset that can't be watched.

    Raises:
        ConfigurationError: What it has of a row can't be told from the row's key.
    """
    label = queryset.model._meta.label
    if not issubclass(getattr(queryset, "_iterable_class", object), ModelIterable):
        raise ConfigurationError(
            f"The queryset of {label} yields no model instances (values(), values_list() or "
            "raw()?); only instances can be serialized and watched."
        )
    if queryset.query.is_sliced or queryset.query.combinator:
        raise ConfigurationError(
            f"The queryset of {label} is sliced, or a union; which rows of it there are can't be "
            "told from their keys, so they can't be watched. Use filter() instead."
        )
    over = [a for a in queryset.query.annotations.values() if a.contains_over_clause]
    if queryset.query.distinct_fields or over:
        raise ConfigurationError(
            f"The queryset of {label} has distinct() on fields, or a window function: what it has of "
            "a row depends on other rows, so they can't be watched one by one. Use a subquery "
            "(Exists, OuterRef) instead."
        )


def fetch_many(
    wanted: Sequence[tuple[KeyedQuery, Sequence[Hashable]]], connection: BaseDatabaseWrapper
) -> tuple[Snapshot, list[dict[Hashable, models.Model]]]:
    """
    Read for several statements of one shape in one query.

    Args:
        wanted: The statements, each with its keys; at least one.
        connection: Of their database alias.

    Returns:
        The snapshot, and the instances by key for each statement. Statements that find the same
        row with the same values may get the same instance of it.

    Raises:
        django.db.Error: As the ORM raises it.
    """
    rows = _read(wanted, connection)
    if not all(statement.plain for statement, _ in wanted):
        session_of(connection).mark_changed()
    snapshot = Snapshot.parse(rows[0][0])
    parts: list[list[tuple[Any, ...]]] = [[] for _ in wanted]
    for row in rows:
        if row[1] is not None:
            parts[row[1]].append(row[2:])
    return snapshot, _found([statement for statement, _ in wanted], parts)


def _read(
    wanted: Sequence[tuple[KeyedQuery, Sequence[Hashable]]], connection: BaseDatabaseWrapper
) -> list[tuple[Any, ...]]:
    params = [statement._parameters(keys, connection) for statement, keys in wanted]
    statements = [statement for statement, _ in wanted]
    if len(wanted) > 1 and len({statement._template for statement in statements}) == 1:
        query = for_each(
            statements[0]._template, [s._params for s in statements], params, connection
        )
        # Most of them may well not have the row: the snapshot comes with the first answer. Some type
        # may be unlike what its literal is in a list; then it is asked in the long way.
        with suppress(ProgrammingError, DataError):
            if query is not None:
                return _execute(_WITH_SNAPSHOT_ALWAYS.format(query), [], connection, False)
    branches = " UNION ALL ".join(
        f"SELECT {number}, r.* FROM ({statement.text}) r"  # noqa: S608 (compiled by the ORM)
        for number, statement in enumerate(statements)
    )
    flat = list(chain.from_iterable(params))
    return _with_snapshot(branches, flat, connection, prepare=None if len(wanted) == 1 else False)


def _with_snapshot(
    query: str, params: list[list[Any]], connection: BaseDatabaseWrapper, *, prepare: bool | None
) -> list[tuple[Any, ...]]:
    rows = _execute(_WITH_SNAPSHOT.format(query), params, connection, prepare)
    # An empty answer needs its snapshot as well. It costs a join, so it is asked for only then.
    return rows or _execute(_WITH_SNAPSHOT_ALWAYS.format(query), params, connection, prepare)


def _found(
    statements: Sequence[KeyedQuery], parts: Sequence[list[tuple[Any, ...]]]
) -> list[dict[Hashable, models.Model]]:
    """Return the instances by key for each statement."""
    if len(statements) > 1 and all(statement.bare for statement in statements):
        with suppress(TypeError):  # a row with JSON or an array in it has no hash
            distinct = list(dict.fromkeys(chain.from_iterable(parts)))
            instances = statements[0]._instances(distinct)
            known = {
                row: (key_of(instance), instance)
                for row, instance in zip(distinct, instances, strict=True)
            }
            return [dict(known[row] for row in part) for part in parts]
    return [
        {key_of(instance): instance for instance in statement._instances(part)}
        for statement, part in zip(statements, parts, strict=True)
    ]


def _execute(
    text: str, params: list[list[Any]], connection: BaseDatabaseWrapper, prepare: bool | None
) -> list[tuple[Any, ...]]:
    """Run with server-side binding, which Django's own cursors do not do by default."""
    with connection.wrap_database_errors:
        try:
            return _run(text, params, connection, prepare)
        except STALE:
            # The table was altered, or a proxy has given us another session. What psycopg knows of
            # this session's prepared statements is wrong; a new session knows none.
            connection.close()
            return _run(text, params, connection, False)


def _run(
    text: str, params: list[list[Any]], connection: BaseDatabaseWrapper, prepare: bool | None
) -> list[tuple[Any, ...]]:
    session = session_of(connection)
    raw: psycopg.Connection[Any] = connection.connection
    # Behind a pool that gives each transaction another session, nothing can stay prepared.
    # Django's setting for that is this one.
    if raw.prepare_threshold is None and not connection.settings_dict.get(
        "DISABLE_SERVER_SIDE_CURSORS"
    ):
        raw.prepare_threshold = PREPARE_AFTER
    with psycopg.Cursor(raw) as cursor:
        session.execute(connection, partial(cursor.execute, prepare=prepare), text, params)
        return cursor.fetchall()


class _Filled:
    """A queryset whose rows were read already; what :class:`ModelIterable` asks of one."""

    def __init__(self, queryset: QuerySet[Any], compiler: Any, rows: list[tuple[Any, ...]]) -> None:
        self._queryset = queryset
        self._compiler = compiler
        self._rows = rows

    def __getattr__(self, name: str) -> Any:
        # First the compiler's attributes that are asked of get_compiler()'s result.
        if name in {"select", "klass_info", "annotation_col_map"}:
            return getattr(self._compiler, name)
        return getattr(self._queryset, name)

    @property
    def query(self) -> _Filled:
        return self

    def get_compiler(self, using: str) -> _Filled:
        return self

    def execute_sql(self, **_: Any) -> list[list[tuple[Any, ...]]]:
        return [self._rows]

    def results_iter(self, results: Any) -> Iterator[Any]:
        rows: Iterator[Any] = self._compiler.results_iter(results)
        return rows
