"""The oracle's tables, schemas and role, for as long as a test needs them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from django.core.management import call_command
from django.db import connection

from tests.integration.oracle.models import Comment, Grant, Note, Paper, Place, Tag, Team

if TYPE_CHECKING:
    from collections.abc import Iterator

#: In the order in which they can be made.
MODELS: Final = (Team, Tag, Note, Comment, Grant, Paper, Place)

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

GRANTS: Final = """
GRANT SELECT ON ALL TABLES IN SCHEMA public TO oracle_reader;
"""


@contextmanager
def oracle_tables() -> Iterator[None]:
    """Make the tables and their triggers; drop them at the end."""
    _drop()
    try:
        with connection.schema_editor() as editor:
            for model in MODELS:
                editor.create_model(model)
        with connection.cursor() as cursor:
            cursor.execute(PREPARE)
            for tenant in TENANTS:
                cursor.execute(PREPARE_TENANT.format(tenant=tenant))
            cursor.execute(GRANTS)
        call_command("pgobserve", "install", *OBSERVED, verbosity=0)
        for tenant in TENANTS:
            _install_in(f"oracle_{tenant}")
        yield
    finally:
        _drop()


def _install_in(schema: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET search_path TO {schema}, public")
    try:
        call_command("pgobserve", "install", "oracle.Place", verbosity=0)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET search_path")


def _drop() -> None:
    tables = [model._meta.db_table for model in (*MODELS, Note.tags.through, Team.members.through)]
    roles = ["oracle_reader", *(f"oracle_{tenant}" for tenant in TENANTS)]
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {', '.join(tables)} CASCADE")
        for tenant in TENANTS:
            cursor.execute(f"DROP SCHEMA IF EXISTS oracle_{tenant} CASCADE")
        cursor.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [roles])
        for (role,) in cursor.fetchall():
            cursor.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
