"""
Queries of the catalog under a ``search_path`` in which no other role's operators are found.

Where a role may create in a schema of the ``search_path``, it can make operators such as
``=(oid, regclass)``. PostgreSQL prefers them to its own, whose types fit less exactly, and so runs that
role's functions with the rights of the role that queries.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from django.db import transaction
from psycopg.pq import TransactionStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from psycopg.sql import Composed

#: Temporary tables and types come last: unless it is named, ``pg_temp`` comes first.
_PIN: Final = """
WITH was AS MATERIALIZED (SELECT pg_catalog.current_setting('search_path') AS path)
SELECT was.path, pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true) FROM was
"""

_RESTORE: Final = "SELECT pg_catalog.set_config('search_path', %s, true)"

#: There is no operator in it.
_RESOLVE: Final = """
SELECT given.name, pg_catalog.to_regclass(given.name)::pg_catalog.oid
  FROM pg_catalog.unnest(%s::pg_catalog.text[]) AS given(name)
"""


def fetch(
    connection: BaseDatabaseWrapper,
    query: str | Composed,
    parameters: Sequence[Any] | Mapping[str, Any] | None = None,
) -> list[tuple[Any, ...]]:
    """
    Return the rows of a query that runs with ``search_path = pg_catalog, pg_temp``.

    The path holds for the query alone, also in a transaction that is open, and after an error. A pool
    of transactions passes nothing of it on.
    """
    # Some backends set the path whenever a cursor is made, so all happens over one.
    with _transaction(connection) as ours, connection.cursor() as cursor:
        cursor.execute(_PIN)
        ((before, _),) = cursor.fetchall()
        try:
            cursor.execute(query, parameters)
            return list(cursor.fetchall())
        finally:
            # The end of a transaction, or the rollback after an error, restores it as well.
            if not ours and _status(connection) == TransactionStatus.INTRANS:
                cursor.execute(_RESTORE, [before])


def resolve(connection: BaseDatabaseWrapper, tables: Iterable[str]) -> dict[str, int]:
    """
    Return the object ids of tables by their quoted names, as the session's ``search_path`` has them.

    Names of which there is no table are left out.
    """
    with connection.cursor() as cursor:
        cursor.execute(_RESOLVE, [list(tables)])
        return {name: oid for name, oid in cursor.fetchall() if oid is not None}


@contextlib.contextmanager
def _transaction(connection: BaseDatabaseWrapper) -> Iterator[bool]:
    """Run a block in a transaction; yield whether it was begun for it."""
    if connection.get_autocommit() and _status(connection) == TransactionStatus.IDLE:
        with transaction.atomic(using=connection.alias):
            yield True
    else:
        yield False


def _status(connection: BaseDatabaseWrapper) -> int:
    raw: Any = connection.connection
    return int(raw.info.transaction_status)
