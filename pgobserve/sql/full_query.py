"""
A queryset read as a whole, in one snapshot of the database.

All reads while it is rendered see the same snapshot: prefetched rows, and queries of serializers.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from django.db import InterfaceError, OperationalError

from pgobserve.database.session import in_snapshot, isolate, session_of
from pgobserve.database.tracked_session import is_plain_read
from pgobserve.hub.snapshot import Snapshot
from pgobserve.sql.columns import forget
from pgobserve.sql.key_sql import identified, identity_of, key_positions, key_types
from pgobserve.sql.keyed_query import SNAPSHOT, check
from pgobserve.sql.keys import key_fields
from pgobserve.sql.literals import for_each, inline
from pgobserve.sql.row_instances import has_own_rows, instances_of, key_read

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import QuerySet

    from pgobserve.sql.keyed_query import Instances, Rows

_LIMIT: Final = "SELECT * FROM ({}) AS listed LIMIT {}"


class FullQuery:
    """
    A compiled queryset that is read as a whole.

    Args:
        queryset: Yields model instances; neither sliced nor a union.
        connection: A connection of its alias.

    Attributes:
        text: The SQL; equal texts read the same rows in the same order.
        plain: The query calls nothing that may change the session.

    Raises:
        ConfigurationError: The queryset can't be watched.
    """

    def __init__(self, queryset: QuerySet[Any], connection: BaseDatabaseWrapper) -> None:
        check(queryset)
        self._queryset: Any = queryset.using(connection.alias)
        self._compiler = self._queryset.query.get_compiler(
            using=connection.alias, elide_empty=False
        )
        self._template, self._params = self._compiler.as_sql()
        self._at = key_positions(self._compiler, queryset.model)
        self.text = _executable(inline(self._template, self._params, connection))
        self.plain = is_plain_read(self._template)

    def read(self, connection: BaseDatabaseWrapper, limit: int | None = None) -> Instances:
        """
        Read the rows, within :func:`one_snapshot`.

        Args:
            connection: The connection.
            limit: Enough rows: the result may have more, and has fewer only if no more exist.

        Returns:
            The instances by key, in the queryset's order. A row that a join repeats appears once.
        """
        if not self.plain:
            session_of(connection).mark_changed()
        if limit is None:
            return self._by_key(self._fetch(self.text, connection), connection)
        size = int(limit)
        while True:
            rows = self._fetch(_LIMIT.format(self.text, size), connection)
            instances = self._by_key(rows, connection)
            if len(instances) >= limit or len(rows) < size:
                return instances
            size *= 4  # a join repeated rows

    def keys(self, connection: BaseDatabaseWrapper) -> list[str]:
        """Return the identities of the rows in the queryset's order, within :func:`one_snapshot`."""
        model = self._queryset.model
        names = [field.attname for field in key_fields(model)]
        query = self._queryset.prefetch_related(None).values_list(*names).query
        compiler = query.get_compiler(using=connection.alias, elide_empty=False)
        template, params = compiler.as_sql()
        text = _executable(inline(template, params, connection))
        columns = [f"c{number}" for number in range(len(names))]
        key = identity_of([f"q.{each}" for each in columns], key_types(model, connection))
        rows = _fetch(f"SELECT {key} FROM ({text}) q({', '.join(columns)})", connection)  # noqa: S608
        return list(dict.fromkeys(row[0] for row in rows))

    @property
    def counts_in_sql(self) -> bool:
        """Whether the database can count the rows, because the queryset drops none in Python."""
        return not has_own_rows(self._queryset)

    def count(self, connection: BaseDatabaseWrapper) -> int:
        """Count the rows, within :func:`one_snapshot`."""
        return int(self._queryset.order_by().values("pk").distinct().count())

    def _fetch(self, text: str, connection: BaseDatabaseWrapper) -> Rows:
        """Run a query that has the columns of this one, and add the row's identity behind them."""
        oids, rows = _fetch_typed(self.identified(text, connection), connection)
        if self.altered(oids, connection):
            _, rows = _fetch_typed(self.identified(text, connection), connection)
        return rows

    def identified(self, text: str, connection: BaseDatabaseWrapper) -> str:
        """Return a query that has the columns of this one, with the row's identity behind them."""
        return identified(text, self._at, key_types(self._queryset.model, connection))

    def altered(self, oids: Sequence[int], connection: BaseDatabaseWrapper) -> bool:
        """Return whether the key's columns have other types than were known, by a result's columns."""
        types = key_types(self._queryset.model, connection)
        if all(each.oid in (0, oids[at]) for each, at in zip(types, self._at, strict=True)):
            return False
        forget(self._queryset.model._meta.db_table, connection.alias)
        return True

    def _by_key(self, rows: Rows, connection: BaseDatabaseWrapper) -> Instances:
        instances: Instances = {}
        for instance in instances_of(self._queryset, self._compiler, rows):
            instances.setdefault(key_read(instance, connection), instance)
        return instances


def read_many(
    queries: Sequence[FullQuery], connection: BaseDatabaseWrapper, limit: int
) -> list[Instances | None]:
    """
    Read several querysets, within :func:`one_snapshot`; equal templates share a statement.

    Returns:
        Each query's instances by key, in its order; None for a query with more rows than the limit, and
        if a table was altered.
    """
    parts: list[Rows] = [[] for _ in queries]
    by_template: dict[str, list[int]] = defaultdict(list)
    for number, query in enumerate(queries):
        by_template[query._template].append(number)
    if not all(query.plain for query in queries):
        session_of(connection).mark_changed()
    for numbers in by_template.values():
        text = _for_all([queries[number] for number in numbers], connection, limit + 1)
        oids, rows = _fetch_typed(text, connection)
        if queries[numbers[0]].altered(oids[1:], connection):
            return [None] * len(queries)
        for row in rows:
            parts[numbers[row[0]]].append(row[1:])
    return [
        None if len(rows) > limit else query._by_key(rows, connection)
        for query, rows in zip(queries, parts, strict=True)
    ]


def _for_all(queries: Sequence[FullQuery], connection: BaseDatabaseWrapper, limit: int) -> str:
    """Return a statement for all queries, each with its order and limit; its first column is their number."""
    first = queries[0]
    template = first.identified(_LIMIT.format(first._template, limit), connection)
    no_keys: list[Any] = [[] for _ in queries]
    text = for_each(template, [query._params for query in queries], no_keys, connection)
    if text is not None:
        return _executable(text)
    return " UNION ALL ".join(
        f"SELECT {number}, r.* FROM ({query.identified(_LIMIT.format(query.text, limit), connection)}) r"  # noqa: S608
        for number, query in enumerate(queries)
    )


@contextmanager
def one_snapshot(connection: BaseDatabaseWrapper) -> Iterator[Snapshot]:
    """Run the block in one snapshot of the database, and yield the snapshot."""
    connection.ensure_connection()
    raw: Any = connection.connection
    try:
        with in_snapshot(connection):
            yield Snapshot.parse(_fetch(f"SELECT {SNAPSHOT}", connection)[0][0])
        isolate(connection)
    except (OperationalError, InterfaceError):
        # On the way out Django replaces a lost connection. Close the new one, so that the caller can
        # tell a lost connection from a failed query.
        if raw.closed:
            connection.close()
        raise


def _executable(text: str) -> str:
    """Return a template as SQL to run without parameters, with single per cent signs."""
    return text.replace("%%", "%")


def _fetch(text: str, connection: BaseDatabaseWrapper) -> Rows:
    return _fetch_typed(text, connection)[1]


def _fetch_typed(text: str, connection: BaseDatabaseWrapper) -> tuple[list[int], Rows]:
    """Return the object ids of the columns' types, and the rows."""
    session = session_of(connection)
    # The project's wrappers may change the session, so their statements don't count as the loader's.
    own = nullcontext() if session.has_project_code(connection) else session
    with own, connection.cursor() as cursor:
        cursor.execute(text)
        rows: Rows = cursor.fetchall()
        return [column[1] for column in cursor.description], rows
