"""
A queryset read as a whole, in one snapshot of the database.

Everything that is read while it is rendered belongs to the same snapshot: related rows that are
prefetched, or that a serializer asks for.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from django.db import InterfaceError, OperationalError

from pgobserve.database.plain_reads import is_plain_read
from pgobserve.database.session import isolate, session_of
from pgobserve.database.session_scopes import in_snapshot
from pgobserve.hub.snapshot import Snapshot
from pgobserve.sql.keyed_query import SNAPSHOT, check, instances_of
from pgobserve.sql.keys import key_of
from pgobserve.sql.literals import for_each, inline
from pgobserve.sql.own_rows import has_own_rows

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from django.db import models
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import QuerySet

_LIMIT: Final = "SELECT * FROM ({}) AS listed LIMIT {}"


class FullQuery:
    """
    A compiled queryset that is read as a whole.

    Args:
        queryset: Of model instances; not sliced, not a union.
        connection: Of its database alias.

    Attributes:
        text: The SQL; equal texts read the same rows in the same order.

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
        self.text = _executable(inline(self._template, self._params, connection))
        self.plain = is_plain_read(self._template)

    def read(
        self, connection: BaseDatabaseWrapper, limit: int | None = None
    ) -> dict[Hashable, models.Model]:
        """
        Read the rows, within :func:`one_snapshot`.

        Args:
            connection: Where.
            limit: How many are enough. There may be fewer only if there are no more, and some more.

        Returns:
            The instances by key, in the queryset's order. A row that a join finds several times is
            there once.

        Raises:
            django.db.Error: As the ORM raises it.
        """
        if not self.plain:
            session_of(connection).mark_changed()
        if limit is None:
            return self._by_key(_fetch(self.text, connection))
        size = int(limit)
        while True:
            rows = _fetch(_LIMIT.format(self.text, size), connection)
            found = self._by_key(rows)
            if len(found) >= limit or len(rows) < size:
                return found
            size *= 4

    @property
    def counts_in_sql(self) -> bool:
        """Whether the database can count the rows: the queryset leaves none out afterwards."""
        return not has_own_rows(self._queryset)

    def count(self, connection: BaseDatabaseWrapper) -> int:
        """Return how many rows there are, within :func:`one_snapshot`."""
        return int(self._queryset.order_by().values("pk").distinct().count())

    def _by_key(self, rows: list[tuple[Any, ...]]) -> dict[Hashable, models.Model]:
        found: dict[Hashable, models.Model] = {}
        for instance in instances_of(self._queryset, self._compiler, rows):
            found.setdefault(key_of(instance), instance)
        return found


def read_many(
    wholes: Sequence[FullQuery], connection: BaseDatabaseWrapper, limit: int
) -> list[dict[Hashable, models.Model] | None]:
    """
    Read several querysets, within :func:`one_snapshot`: those of one shape by one statement.

    Returns:
        For each the instances by key, in its order; None for one that finds more rows than the
        limit.

    Raises:
        django.db.Error: As the ORM raises it, for whichever of them.
    """
    parts: list[list[tuple[Any, ...]]] = [[] for _ in wholes]
    by_shape: dict[str, list[int]] = defaultdict(list)
    for number, whole in enumerate(wholes):
        by_shape[whole._template].append(number)
    if not all(whole.plain for whole in wholes):
        session_of(connection).mark_changed()
    for numbers in by_shape.values():
        text = _for_all([wholes[number] for number in numbers], connection, limit + 1)
        for row in _fetch(text, connection):
            parts[numbers[row[0]]].append(row[1:])
    return [
        None if len(rows) > limit else whole._by_key(rows)
        for whole, rows in zip(wholes, parts, strict=True)
    ]


def _for_all(wholes: Sequence[FullQuery], connection: BaseDatabaseWrapper, limit: int) -> str:
    """
    Return a statement for all, whose first column is the number of each.

    The inner query has its order and its limit, and is run for one after the other.
    """
    template = _LIMIT.format(wholes[0]._template, limit)
    nothing: list[Any] = [[] for _ in wholes]
    text = for_each(template, [whole._params for whole in wholes], nothing, connection)
    if text is not None:
        return _executable(text)
    return " UNION ALL ".join(
        f"SELECT {number}, r.* FROM ({_LIMIT.format(whole.text, limit)}) r"  # noqa: S608
        for number, whole in enumerate(wholes)
    )


@contextmanager
def one_snapshot(connection: BaseDatabaseWrapper) -> Iterator[Snapshot]:
    """Have all that is read within belong to one snapshot; yields it."""
    connection.ensure_connection()
    raw: Any = connection.connection
    try:
        with in_snapshot(connection):
            yield Snapshot.parse(_fetch(f"SELECT {SNAPSHOT}", connection)[0][0])
        isolate(connection)
    except (OperationalError, InterfaceError):
        # Where a connection ends within, Django makes a new one on the way out. Whoever is to find
        # out why the query failed must see that it was the connection.
        if raw.closed:
            connection.close()
        raise


def _executable(text: str) -> str:
    """Return what was to be formatted: without parameters a per cent sign is one."""
    return text.replace("%%", "%")


def _fetch(text: str, connection: BaseDatabaseWrapper) -> list[tuple[Any, ...]]:
    session = session_of(connection)
    # What the project's wrappers do to the session is not the loader's.
    own = nullcontext() if session.has_project_code(connection) else session
    with own, connection.cursor() as cursor:
        cursor.execute(text)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows
