"""A table for each type, whose primary key has it, and a table that refers to it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps
from django.db import connection, models

from pgobserve.triggers import registry
from pgobserve.triggers.server import catalog
from pgobserve.triggers.trigger_statements import install_statements
from tests.integration.types.samples import available

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.types.samples import Sample

#: Composite keys: columns, their fields, and two values. The last one is temporal, from version 18 on.
PAIRS: Final = {
    "stage": (
        ("sample_stage", models.CharField, "'new'", "'it''s \"done\"'"),
        ("integer", models.IntegerField, "1", "1"),
    ),
    "moment": (
        ("uuid", models.UUIDField, *["'7a0f7a32-61d7-4a43-9a51-5fd0a7c0c001'"] * 2),
        ("timestamptz", models.DateTimeField, "'2024-02-03 10:00+05:30'", "'2025-01-01 00:00+00'"),
    ),
    "odd": (
        ("text", models.TextField, "E'a\"\\\\,\\n\\u20ac\\x01'", "''"),
        ("bytea", models.BinaryField, "'\\x00ff'::bytea", "''::bytea"),
    ),
}


@dataclass(frozen=True)
class Kind:
    """
    A table and what refers to it.

    Attributes:
        name: Its name.
        model: Its model.
        line: The model that refers to it; None for a composite key.
        columns: The columns of its key as SQL.
        values: Two keys as SQL.
    """

    name: str
    model: type[models.Model]
    line: type[models.Model] | None
    columns: str
    values: tuple[str, str]


def _model(name: str, **members: Any) -> type[models.Model]:
    meta = type("Meta", (), {"app_label": "project", "managed": False, "db_table": name})
    return type(name, (models.Model,), {"__module__": __name__, "Meta": meta, **members})


def _of(sample: Sample) -> Kind:
    name = f"types_{sample.name}"
    kind = _model(name, id=sample.field(primary_key=True), note=models.TextField())
    owner = models.ForeignKey(kind, models.DO_NOTHING, related_name="lines", db_constraint=False)
    line = _model(f"{name}_line", owner=owner, text=models.TextField())
    return Kind(name, kind, line, "id", sample.values[:2])


def _pair(name: str) -> Kind:
    (_, first, a, c), (_, second, b, d) = PAIRS[name]
    model = _model(
        f"types_pair_{name}",
        pk=models.CompositePrimaryKey("a", "b"),
        a=first(**({"max_length": 20} if first is models.CharField else {})),
        b=second(),
        note=models.TextField(),
    )
    return Kind(f"types_pair_{name}", model, None, "a, b", (f"{a}, {b}", f"{c}, {d}"))


@contextlib.contextmanager
def tables(transport: str) -> Iterator[list[Kind]]:
    """Make the tables with triggers in a schema of their own, and remove all at the end."""
    name = connection.settings_dict["NAME"]
    execute("DROP SCHEMA IF EXISTS samples CASCADE", "CREATE SCHEMA samples")
    execute(f"ALTER DATABASE {name} SET search_path = samples, public")
    connection.close()
    samples = available(rows)
    kinds = [*map(_of, samples), *map(_pair, PAIRS)]
    try:
        script = [*map(_table, samples, kinds), *map(_pair_table, PAIRS)]
        execute(";".join(script))
        known: list[Any] = [each.model for each in kinds]
        routes = {each.line: ("owner_id",) for each in kinds if each.line is not None}
        built = registry.build([*known, *routes], transport=transport, routes=routes)
        found = catalog.relations(connection, [each.table for each in built])
        execute(
            ";".join(
                text
                for each in built
                for text in install_statements(each, found[each.table], always=False)
            )
        )
        yield kinds
    finally:
        for kind in kinds:
            for model in (kind.model, kind.line):
                if model is not None:
                    del apps.all_models["project"][model._meta.model_name or ""]
        apps.clear_cache()
        execute("DROP SCHEMA samples CASCADE", f"ALTER DATABASE {name} RESET search_path")
        execute("DROP SCHEMA IF EXISTS pgobserve CASCADE")
        connection.close()


def _table(sample: Sample, kind: Kind) -> str:
    return (
        f"CREATE TABLE {kind.name} (id {sample.column} PRIMARY KEY, note text NOT NULL);"
        f"CREATE TABLE {kind.name}_line (id bigserial PRIMARY KEY, owner_id {sample.column}, text text)"
    )


def _pair_table(name: str) -> str:
    (a, *_), (b, *_) = PAIRS[name]
    return f"CREATE TABLE types_pair_{name} (a {a}, b {b}, note text, PRIMARY KEY (a, b))"


def execute(*statements: str) -> None:
    """Run SQL."""
    with connection.cursor() as cursor:
        for each in statements:
            cursor.execute(each)


def rows(statement: str) -> list[Any]:
    """Run SQL, and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []
