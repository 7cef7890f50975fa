"""The triggers, policies, schemas and roles of the oracle's tables, for as long as a test needs them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from django.apps import apps
from django.core.management import call_command
from django.db import connection

from pgobserve import conf
from tests.installing import install_by

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What the triggers are on, besides the tenants' tables.
OBSERVED: Final = (
    "oracle.Team",
    "oracle.Team_members",
    "oracle.Tag",
    "oracle.Note",
    "oracle.Note_tags",
    "oracle.Comment",
    "oracle.Grant",
    "oracle.Paper",
    "oracle.Place",
    "auth.User",
)

#: Tenants, each with a schema and a role.
TENANTS: Final = ("anna", "bert", "carl")

PREPARE: Final = """
CREATE ROLE oracle_reader;
ALTER TABLE oracle_paper ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON oracle_paper FOR SELECT
    USING (owner = current_setting('oracle.user', true) OR current_user = 'oracle_' || owner);
"""

PREPARE_TENANT: Final = """
CREATE ROLE oracle_{tenant} IN ROLE oracle_reader;
CREATE SCHEMA oracle_{tenant};
GRANT USAGE ON SCHEMA oracle_{tenant} TO oracle_reader;
CREATE TABLE oracle_{tenant}.oracle_place (LIKE public.oracle_place INCLUDING ALL);
"""

# The rows of a walk have the keys that it expects.
DROP: Final = """
DROP SCHEMA IF EXISTS pgobserve CASCADE;
TRUNCATE {tables} RESTART IDENTITY;
DROP POLICY IF EXISTS mine ON oracle_paper;
ALTER TABLE oracle_paper DISABLE ROW LEVEL SECURITY;
"""

GRANTS: Final = """
GRANT SELECT ON ALL TABLES IN SCHEMA public TO oracle_reader;
"""


@contextmanager
def oracle_tables() -> Iterator[None]:
    """Make all of it; drop it at the end."""
    _drop()
    try:
        with connection.cursor() as cursor:
            cursor.execute(PREPARE)
            for tenant in TENANTS:
                cursor.execute(PREPARE_TENANT.format(tenant=tenant))
            cursor.execute(GRANTS)
        install_by(("oracle", conf.get().TRANSPORT), _install)
        yield
    finally:
        _drop()


def _install() -> None:
    call_command("pgobserve", "install", *OBSERVED, verbosity=0)
    for tenant in TENANTS:
        _install_in(f"oracle_{tenant}")


def _install_in(schema: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET search_path TO {schema}, public")
    try:
        call_command("pgobserve", "install", "oracle.Place", verbosity=0)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET search_path")


def _drop() -> None:
    roles = ["oracle_reader", *(f"oracle_{tenant}" for tenant in TENANTS)]
    models = apps.get_app_config("oracle").get_models(include_auto_created=True)
    tables = ", ".join(model._meta.db_table for model in models)
    with connection.cursor() as cursor:
        cursor.execute(DROP.format(tables=tables))
        for tenant in TENANTS:
            cursor.execute(f"DROP SCHEMA IF EXISTS oracle_{tenant} CASCADE")
        cursor.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [roles])
        for (role,) in cursor.fetchall():
            cursor.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
