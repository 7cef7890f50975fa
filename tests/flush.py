"""
Empty the tables that a test has filled, and only those.

Django's flush truncates every table and then writes content types and permissions anew: 0.1 s for
each test. Here content types and permissions stay as they are, and a table without a single page
holds no rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connections
from django.test import TransactionTestCase

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

#: Written once by ``migrate``, from the models; their primary keys never change here.
KEPT = ("django_content_type", "auth_permission")

# A partitioned table has no pages of its own.
_FILLED = """
SELECT c.oid::regclass::text
FROM pg_catalog.unnest(%s::text[]) AS given (name)
JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(pg_catalog.quote_ident(given.name))
WHERE c.relkind = 'p' OR pg_catalog.pg_relation_size(c.oid) > 0
"""

_FINGERPRINT = " UNION ALL ".join(
    f"SELECT pg_catalog.md5(pg_catalog.string_agg(t::text, ',' ORDER BY t.id)) FROM {table} t"
    for table in KEPT
)


class Flush:
    """Takes the place of ``TransactionTestCase._fixture_teardown``."""

    def __init__(self) -> None:
        self._original = TransactionTestCase._fixture_teardown
        self._tables: dict[str, list[str]] = {}
        self._kept: dict[str, Any] = {}

    def prepare(self, alias: str) -> None:
        """Remember a database whose tables ``migrate`` has just made."""
        connection = connections[alias]
        names = connection.introspection.django_table_names(only_existing=False)
        self._tables[alias] = [name for name in names if name not in KEPT]
        self._kept[alias] = _rows(connection, _FINGERPRINT)

    def __call__(self, case: Any) -> None:
        """Empty the tables of a test's databases."""
        for alias in case._databases_names(include_mirrors=False):
            connection = connections[alias]
            if self._kept.get(alias) != _rows(connection, _FINGERPRINT):
                # A test has changed what is kept here: Django writes all of it anew.
                self._original(case)
                self.prepare(alias)
                return
            if filled := [name for (name,) in _rows(connection, _FILLED, self._tables[alias])]:
                with connection.cursor() as cursor:
                    cursor.execute(f"TRUNCATE {', '.join(filled)} CASCADE")


def _rows(connection: BaseDatabaseWrapper, query: str, *params: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(query, params or None)
        return cursor.fetchall()
