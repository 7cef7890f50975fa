"""
Query the catalog under a ``search_path`` without other roles' operators.

A role that may create objects in a schema of the ``search_path`` can create operators such as
``=(oid, regclass)``. PostgreSQL prefers them to its own, whose argument types match less exactly.
It would run that role's functions with the rights of the querying role.
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

#: ``pg_temp`` is named last, because PostgreSQL searches it first where it is not named.
_PIN: Final = """
WITH was AS MATERIALIZED (SELECT pg_catalog.current_setting('search_path') AS path)
SELECT was.path, pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true) FROM was
"""

_RESTORE: Final = "SELECT pg_catalog.set_config('search_path', %s, true)"

#: Has no operator, so it is safe under the session's own ``search_path``.
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

    The session's own path is back afterwards, in an open transaction and after an error too. The
    setting is local to a transaction, so a pool hands it to no other client.
    """
    # Some backends set the path for each new cursor, so one cursor runs all statements.
    with _transaction(connection) as ours, connection.cursor() as cursor:
        cursor.execute(_PIN)
        ((before, _),) = cursor.fetchall()
        try:
            cursor.execute(query, parameters)
            return list(cursor.fetchall())
        finally:
            # The end of our transaction restores it; after an error, the caller's rollback does.
            if not ours and _status(connection) == TransactionStatus.INTRANS:
                cursor.execute(_RESTORE, [before])


def resolve(connection: BaseDatabaseWrapper, tables: Iterable[str]) -> dict[str, int]:
    """Return the object ids of existing tables by quoted name, under the session's ``search_path``."""
    with connection.cursor() as cursor:
        cursor.execute(_RESOLVE, [list(tables)])
        return {name: oid for name, oid in cursor.fetchall() if oid is not None}


@contextlib.contextmanager
def _transaction(connection: BaseDatabaseWrapper) -> Iterator[bool]:
    """Run a block in a transaction; yield whether it was started here."""
    if connection.get_autocommit() and _status(connection) == TransactionStatus.IDLE:
        with transaction.atomic(using=connection.alias):
            yield True
    else:
        yield False


def _status(connection: BaseDatabaseWrapper) -> int:
    raw: Any = connection.connection
    return int(raw.info.transaction_status)
