"""
A queryset read as a whole, in one snapshot of the database.

Everything that is read while it is rendered belongs to the same snapshot: related rows that are
prefetched, or that a serializer asks for.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import InterfaceError, OperationalError, transaction

from pgobserve.feed.keys import key_of
from pgobserve.feed.literals import inline
from pgobserve.feed.snapshot import Snapshot
from pgobserve.feed.statement import SNAPSHOT, check, instances_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from django.db import models
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import QuerySet

_LIMIT = "SELECT * FROM ({}) AS listed LIMIT {}"


class Whole:
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
        text, params = self._compiler.as_sql()
        self.text = inline(text, params, connection).replace("%%", "%")

    def read(
        self, connection: BaseDatabaseWrapper, limit: int | None = None
    ) -> dict[Hashable, models.Model]:
        """
        Read the rows, within :func:`one_snapshot`.

        Returns:
            The instances by key, in the queryset's order. A row that a join finds several times is
            there once.

        Raises:
            django.db.Error: As the ORM raises it.
        """
        text = self.text if limit is None else _LIMIT.format(self.text, int(limit))
        found: dict[Hashable, models.Model] = {}
        for instance in instances_of(self._queryset, self._compiler, _fetch(text, connection)):
            found.setdefault(key_of(instance), instance)
        return found

    def count(self, connection: BaseDatabaseWrapper) -> int:
        """Return how many rows there are, within :func:`one_snapshot`."""
        return int(self._queryset.order_by().values("pk").distinct().count())


@contextmanager
def one_snapshot(connection: BaseDatabaseWrapper) -> Iterator[Snapshot]:
    """Have all that is read within belong to one snapshot; yields it."""
    connection.ensure_connection()
    raw: Any = connection.connection
    try:
        with transaction.atomic(using=connection.alias):
            _execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", connection)
            yield Snapshot.parse(_fetch(f"SELECT {SNAPSHOT}", connection)[0][0])
    except (OperationalError, InterfaceError):
        # Where a connection ends within, Django makes a new one on the way out. Whoever is to find
        # out why the query failed must see that it was the connection.
        if raw.closed:
            connection.close()
        raise


def _fetch(text: str, connection: BaseDatabaseWrapper) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        # Without parameters a per cent sign is one.
        cursor.execute(text)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def _execute(text: str, connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.execute(text)
