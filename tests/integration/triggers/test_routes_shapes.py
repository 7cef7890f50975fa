"""Tables and columns of every shape send values beside keys, and no write fails because of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.triggers import installer, registry
from tests.integration.triggers.routed import chapters, raw, route, told_by
from tests.project import shapes
from tests.project.shapes import Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from tests.integration.triggers.conftest import Ear

__all__ = ["chapters", "raw"]  # fixtures


@pytest.mark.parametrize(
    ("kind", "old", "new", "told"),
    [
        ("bigint", "9007199254740993", "-1", [-1, 9007199254740993]),
        ("smallint", "1", "2", [1, 2]),
        ("uuid", "'2F1D5C9C-0000-4000-8000-00000000000A'", "'00000000-0000-4000-8000-00000000000b'",
         ["00000000-0000-4000-8000-00000000000b", "2f1d5c9c-0000-4000-8000-00000000000a"]),
        ("text", "'it''s \"q\" \\ é \t,]}'", "''", ["", "it's \"q\" \\ é \t,]}"]),
        ("varchar(20)", "'null'", "'[1]'", ["[1]", "null"]),
        ("numeric(12, 2)", "1.10", "-2", ["-2.00", "1.10"]),
        ("numeric", "'NaN'", "1", ["1", "NaN"]),
        ("date", "'2026-11-24'", "'0044-03-15 BC'", ["0044-03-15 BC", "2026-11-24"]),
        ("boolean", "true", "false", ["f", "t"]),
        ("inet", "'10.0.0.1'", "'::1'", ["10.0.0.1", "::1"]),
    ],
)  # fmt: skip
def test_types(
    ear: Ear,
    run: Callable[..., Any],
    raw: Callable[..., None],
    kind: str,
    old: str,
    new: str,
    told: Any,
) -> None:
    """A value of any type is sent as JSON, whatever its characters."""
    raw(f"of {kind}", "of")
    run(f"INSERT INTO project_raw VALUES (1, {old})")
    run(f"UPDATE project_raw SET of = {new}")
    run(f"INSERT INTO project_raw VALUES (2, {old}), (3, {new})")
    first, *_ = told_by(ear, "of")
    run(f"UPDATE project_raw SET of = {old} WHERE id = 1")
    run("DELETE FROM project_raw")

    assert first[2]["of"] == [each for each in told if each in first[2]["of"]]
    assert told_by(ear, "of") == [
        ("U", [1], {"of": told}),
        ("D", [1, 2, 3], {"of": told}),
    ]


def test_composite_key(ear: Ear, make: Callable[..., None], run: Callable[..., Any]) -> None:
    """Keys of several columns stand beside values of one of them, or of another."""
    make(shapes.PairKey)
    route(shapes.PairKey, "left", "name")
    run("INSERT INTO project_pairkey VALUES ('a', 1, 'x')")
    run("UPDATE project_pairkey SET \"right\" = 2, name = 'y'")
    run("INSERT INTO project_pairkey VALUES ('b', 1, ''), ('a', 1, '')")
    run("DELETE FROM project_pairkey")

    assert told_by(ear, "left", "name") == [
        ("I", [["a", 1]], {"left": ["a"], "name": ["x"]}),
        ("U", [["a", 1], ["a", 2]], {"left": ["a"], "name": ["x", "y"]}),
        ("I", [["a", 1], ["b", 1]], {"left": ["a", "b"], "name": [""]}),
        ("D", [["a", 1], ["a", 2], ["b", 1]], {"left": ["a", "b"], "name": ["", "y"]}),
    ]


def test_quoted_names(ear: Ear, make: Callable[..., None], run: Callable[..., Any]) -> None:
    """Names may need quotes in SQL or JSON; payloads have the catalog's names."""
    make(shapes.MixedCase)
    column = """Odd "{name}" %s é \\ $pgobserve$"""
    quoted = '"' + column.replace('"', '""') + '"'
    run(f"ALTER TABLE \"Mixed Case {{table}}\" ADD {quoted} text DEFAULT 'x'")
    route(shapes.MixedCase, "Key Column", column)
    run("INSERT INTO \"Mixed Case {table}\" VALUES (1, '')")
    run("UPDATE \"Mixed Case {table}\" SET n = 'y'")
    run("INSERT INTO \"Mixed Case {table}\" VALUES (2, ''), (3, '')")

    assert told_by(ear, "Key Column", column) == [
        ("I", [1], {"Key Column": [1], column: ["x"]}),
        ("U", [1], {"Key Column": [1], column: ["x"]}),
        ("I", [2, 3], {"Key Column": [2, 3], column: ["x"]}),
    ]


def test_quoted_by_django(ear: Ear, make: Callable[..., None], run: Callable[..., Any]) -> None:
    """A column whose name Django has in quotes is sent without them."""
    make(shapes.Quoted)
    (registration,) = registry.build([shapes.Quoted], routes={shapes.Quoted: ['"Id"', "name"]})
    installer.install(registration, using="default")
    run("INSERT INTO \"Quoted\" VALUES (1, 'x')")

    assert told_by(ear, "Id", "name") == [("I", [1], {"Id": [1], "name": ["x"]})]


def test_columns_named_like_ours(
    ear: Ear, run: Callable[..., Any], raw: Callable[..., None]
) -> None:
    """Columns named like the variables and aliases of the trigger are no trouble."""
    names = ["body", "bytes", "head", "i", "k", "keys", "longest", "n", "o", "p", "piece", "r"]
    names += ["routes", "s", "u", "v", "v1", "v2"]
    raw(", ".join(f"{name} int" for name in names), *names)
    run("INSERT INTO project_raw (id, n, keys, v1) VALUES (1, 1, 2, 3)")
    run("UPDATE project_raw SET n = 4")
    run("INSERT INTO project_raw (id, n, keys, v1) VALUES (2, 1, 2, 3), (3, 1, 2, 4)")

    inserted, updated, many = told_by(ear, *names)
    assert [inserted[2][name] for name in ("n", "keys", "v1", "s")] == [[1], [2], [3], []]
    assert updated[2]["n"] == [1, 4]
    assert [many[2][name] for name in ("n", "keys", "v1", "s")] == [[1], [2], [3, 4], []]


def test_inheritance(ear: Ear, make: Callable[..., None]) -> None:
    """Each table of a row sends its own columns."""
    make(shapes.Place, shapes.Restaurant)
    for each in registry.build(
        [shapes.Restaurant],
        routes={shapes.Place: ["name"], shapes.Restaurant: ["stars", "place_ptr_id"]},
    ):
        installer.install(each, using="default")
    shapes.Restaurant.objects.create(pk=1, name="x", stars=2)
    shapes.Restaurant.objects.update(name="y")
    shapes.Restaurant.objects.update(stars=3)

    assert [(each["t"], each["o"], each["r"]) for each in ear.payloads()] == [
        ("project.place", "I", {"name": ["x"]}),
        ("project.restaurant", "I", {"place_ptr_id": [1], "stars": [2]}),
        ("project.place", "U", {"name": ["y", "x"]}),
        ("project.restaurant", "U", {"place_ptr_id": [1], "stars": [3, 2]}),
    ]


@pytest.fixture
def partitioned(clean: None, run: Callable[..., Any]) -> Iterator[None]:
    """A table with two partitions, one with its columns in another order."""
    run(
        "CREATE TABLE project_measurement (id bigint, name text, at bigint) PARTITION BY RANGE (at)"
    )
    run("CREATE TABLE part_low PARTITION OF project_measurement FOR VALUES FROM (0) TO (100)")
    run("CREATE TABLE part_high (at bigint, gone int, name text, id bigint)")
    run("ALTER TABLE part_high DROP gone")
    run("ALTER TABLE project_measurement ATTACH PARTITION part_high FOR VALUES FROM (100) TO (200)")
    route(Measurement, "at", "name")
    yield
    run("DROP TABLE project_measurement")


@pytest.mark.usefixtures("partitioned")
@pytest.mark.parametrize("table", ["project_measurement", "part_high"])
def test_partitions(ear: Ear, run: Callable[..., Any], table: str) -> None:
    """A partition sends what the root sends, also for a row that moves to another."""
    run(f"INSERT INTO {table} (id, at, name) VALUES (1, 150, 'a')")
    run(f"UPDATE {table} SET name = 'b'")
    run("UPDATE project_measurement SET at = 50")
    run("DELETE FROM part_low")
    run(f"TRUNCATE {table}")

    assert told_by(ear, "at", "name") == [
        ("I", [1], {"at": [150], "name": ["a"]}),
        ("U", [1], {"at": [150], "name": ["a", "b"]}),
        ("U", [1], {"at": [50, 150], "name": ["b"]}),
        ("D", [1], {"at": [50], "name": ["b"]}),
        ("T", None, None),
    ]


@pytest.mark.usefixtures("chapters")
@pytest.mark.parametrize("change", ["RENAME book TO volume", "DROP book"])
def test_column_is_gone(ear: Ear, writer: psycopg.Connection[Any], change: str) -> None:
    """Without its column every write succeeds, warns and sends a marker."""
    warnings: list[str] = []
    writer.add_notice_handler(lambda d: warnings.append(f"{d.message_primary} {d.message_hint}"))
    writer.execute(f"ALTER TABLE project_raw {change}")
    writer.execute("INSERT INTO project_raw (id) VALUES (1), (2)")
    writer.execute("UPDATE project_raw SET name = 'x'")
    writer.execute("DELETE FROM project_raw")

    assert told_by(ear, "book") == [("I", None, None), ("U", None, None), ("D", None, None)]
    assert len(warnings) == 3
    assert "pgobserve_i does not fit table public.project_raw any more" in warnings[0]
    assert warnings[0].endswith("Run manage.py pgobserve install project.Raw")


@pytest.mark.usefixtures("chapters")
def test_column_of_another_type(ear: Ear, run: Callable[..., Any]) -> None:
    """A column that changes its type under the triggers is sent with the new type."""
    run("INSERT INTO project_raw VALUES (1, 7)")
    run("ALTER TABLE project_raw ALTER book TYPE text")
    run("UPDATE project_raw SET name = 'x'")

    assert told_by(ear, "book") == [("I", [1], {"book": [7]}), ("U", [1], {"book": ["7"]})]


@pytest.mark.usefixtures("chapters")
def test_another_search_path(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """A writer's search_path, and what it finds there under our names, changes nothing."""
    writer.execute("CREATE SCHEMA trap")
    for name in ("concat", "concat_ws"):
        writer.execute(
            f"CREATE FUNCTION trap.{name}(VARIADIC text[]) RETURNS text LANGUAGE sql AS 'SELECT 1/0; SELECT'''''"
        )
    for left in ("text", "bigint", "int"):
        writer.execute(
            f"CREATE FUNCTION trap.no(a {left}, b {left}) RETURNS bool LANGUAGE sql AS 'SELECT false'"
        )
        writer.execute(
            f"CREATE OPERATOR trap.= (LEFTARG = {left}, RIGHTARG = {left}, FUNCTION = trap.no)"
        )
    try:
        writer.execute("SET search_path = trap, pg_catalog")
        writer.execute("INSERT INTO public.project_raw VALUES (1, 7), (2, 7)")
        writer.execute("UPDATE public.project_raw SET name = 'x'")
        writer.execute("UPDATE public.project_raw SET name = 'y' WHERE id OPERATOR(pg_catalog.=) 1")
    finally:
        writer.execute("RESET search_path")
        writer.execute("DROP SCHEMA trap CASCADE")

    assert told_by(ear, "book") == [
        ("I", [1, 2], {"book": [7]}),
        ("U", [1, 2], {"book": [7]}),
        ("U", [1], {"book": [7]}),
    ]


@pytest.mark.usefixtures("chapters")
def test_role_with_rights_on_the_table_alone(
    ear: Ear, writer: psycopg.Connection[Any], run: Callable[..., Any]
) -> None:
    """A role that may only write to the table fires the triggers like any other."""
    run("CREATE ROLE stranger")
    run("GRANT SELECT, INSERT, UPDATE ON project_raw TO stranger")
    try:
        writer.execute("SET ROLE stranger")
        writer.execute("INSERT INTO project_raw VALUES (1, 7), (2, 8)")
        writer.execute("UPDATE project_raw SET book = 9 WHERE id = 1")
        writer.execute("RESET ROLE")
    finally:
        run("DROP OWNED BY stranger")
        run("DROP ROLE stranger")

    assert told_by(ear, "book") == [
        ("I", [1, 2], {"book": [7, 8]}),
        ("U", [1], {"book": [7, 9]}),
    ]
