"""Triggers that are installed in one statement are those that the command installs."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from pgobserve.wire import TRANSPORTS
from tests.installing import install

LABELS = ("project.Item", "auth.User")
_CATALOG = """
SELECT 'function', oid::regprocedure::text, prosrc, proconfig::text, proacl::text,
       obj_description(oid, 'pg_proc')
  FROM pg_proc WHERE pronamespace = to_regnamespace('pgobserve')
UNION ALL
SELECT 'relation', relname, relkind::text, reloptions::text, relacl::text, ''
  FROM pg_class WHERE relnamespace = to_regnamespace('pgobserve')
UNION ALL
SELECT 'trigger', tgname, pg_get_triggerdef(oid), tgenabled::text, '',
       obj_description(oid, 'pg_trigger')
  FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT 'schema', nspname, nspacl::text, '', '', obj_description(oid, 'pg_namespace')
  FROM pg_namespace WHERE nspname = 'pgobserve'
ORDER BY 1, 2, 3
"""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_same_as_the_command(transactional_db: None, settings: Any, transport: str) -> None:
    """Repeating the statements leaves the same catalogs, and nothing for the command to do."""
    settings.PGOBSERVE = {"TRANSPORT": transport}
    install(*LABELS)
    call_command("pgobserve", "uninstall", verbosity=0)
    call_command("pgobserve", "install", *LABELS, verbosity=0)
    expected = catalog()
    install(*LABELS)
    out = io.StringIO()

    assert catalog() == expected
    assert len(expected) > len(LABELS) * 8
    call_command("pgobserve", "install", *LABELS, stdout=out)
    assert out.getvalue().count("unchanged") == len(LABELS)


def catalog() -> list[Any]:
    """Return what the schema and the triggers are."""
    with connection.cursor() as cursor:
        cursor.execute(_CATALOG)
        return cursor.fetchall()
