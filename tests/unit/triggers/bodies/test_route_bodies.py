"""Bodies of triggers that send values beside keys."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest

from pgobserve.errors import ConfigurationError
from pgobserve.triggers import compiler, migration_file, registry, trigger_statements
from pgobserve.triggers.bodies import route_bodies, trigger_body
from pgobserve.triggers.registry import Registration
from pgobserve.triggers.server import drift
from pgobserve.triggers.server.drift import State
from pgobserve.triggers.trigger_values import CatalogEntry, ColumnInfo, Comment, TableInfo
from pgobserve.wire import MAX_PAYLOAD_BYTES, Operation
from tests.project import shapes
from tests.project.models import Item

TABLE = TableInfo(
    "public", "project_wide", types=tuple(map(ColumnInfo, ("id", "shown", "owner_id"))), oid=1
)
WRITES = (Operation.INSERT, Operation.UPDATE, Operation.DELETE)

#: What a released version installed. Another body would make every table "outdated".
WITHOUT = {
    "notify": "f7163a299d60cca92718a13abd554943fdad01e9d35d1d0be0f21d4e1484be0a",
    "outbox": "96a9fb46d0213682d3517977b274098933775894ba07334a88e98a6c01f84310",
}


def _wide(*columns: str, **options: Any) -> Registration:
    (registration,) = registry.build(
        [shapes.Wide], routes={shapes.Wide: columns or ["owner_id"]}, **options
    )
    return registration


def _digest(registration: Registration) -> str:
    wanted = compiler.wanted(registration, TABLE, always=False)
    return hashlib.sha256("".join(each.source for each in wanted.values()).encode()).hexdigest()


@pytest.mark.parametrize("transport", sorted(WITHOUT))
def test_tables_without_routes(transport: str) -> None:
    """A table without routes keeps the triggers that it has, byte for byte."""
    (item,) = registry.build([Item], transport=transport)
    (other,) = registry.build(
        [Item], transport=transport, routes={shapes.Wide: ["owner_id"], Item: []}
    )

    assert _digest(item) == _digest(other) == WITHOUT[transport]
    assert "routes" not in "".join(trigger_statements.install_statements(item, TABLE, always=False))


def test_registration() -> None:
    """Routes go to the table whose columns they are: sorted, once each, as the catalog has them."""
    built = registry.build(
        [shapes.Wide, shapes.Quoted, Item],
        routes={
            shapes.Wide: ["shown", "owner_id", "shown"],
            shapes.Quoted: ['"Id"'],
            shapes.ItemProxy: {"rank"},
            shapes.ItemTwin: {"name"},
            shapes.Child: ["parent_id"],
        },
    )

    assert [(each.label, each.routes) for each in built] == [
        ("project.wide", ("owner_id", "shown")),
        ("project.quoted", ("Id",)),
        ("project.item", ("name", "rank")),
    ]


@pytest.mark.parametrize(
    ("model", "column"),
    [(shapes.Wide, "owner"), (shapes.Wide, "tags"), (shapes.Restaurant, "name")],
)
def test_no_such_column(model: Any, column: str) -> None:
    """What is no column of the table, but of a parent's or none at all, is refused."""
    with pytest.raises(
        ConfigurationError, match=rf"can't carry the values of {column}: .* no such"
    ):
        registry.build([model], routes={model: [column]})


def test_names_that_fill_a_payload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns whose names leave no room for values are refused: a write must not fail by them."""
    monkeypatch.setattr(route_bodies, "MAX_NAME_BYTES", 30)

    with pytest.raises(
        ConfigurationError, match=r"project\.Wide would carry the values of 2 columns"
    ):
        _wide("owner_id", "shown")


@pytest.mark.parametrize("operation", WRITES)
@pytest.mark.parametrize(
    "columns",
    [["owner_id"], ["owner_id", "shown"], ["é" * 31], ["{x}", 'a"b', "%s", "back\\slash"]],
)
def test_payload_leaves_room(operation: Operation, columns: list[str]) -> None:
    """Whatever is between the values is counted in bytes, as it is sent."""
    registration = Registration(model=shapes.Wide, routes=tuple(columns))
    body = trigger_body.first_body(registration, operation, TABLE)
    head = f'{{"v":1,"t":"project.wide","o":"{operation}","x":"' + "9" * 20 + '","k":'
    empty = '[],"r":' + json.dumps({each: [] for each in columns}, separators=(",", ":")) + "}"
    (most,) = re.findall(r"octet_length\(body\) OPERATOR\(pg_catalog.<=\) (\d+)", body)
    (room,) = re.findall(r"\((\d+) OPERATOR\(pg_catalog.-\) longest", body)

    assert len(head) + int(most) == MAX_PAYLOAD_BYTES
    assert len(head) + len(empty.encode()) + int(room) == MAX_PAYLOAD_BYTES


@pytest.mark.parametrize("names", [["owner_id"], ["c" * 1900, "d" * 1900]])
def test_oversized_leaves_pieces(names: list[str]) -> None:
    """However much the names take, a payload has room for three of the longest values."""
    body = trigger_body.first_body(
        Registration(model=shapes.Wide, routes=tuple(names)), Operation.INSERT, TABLE
    )
    (oversized,) = map(int, re.findall(r"longest OPERATOR\(pg_catalog.>=\) (\d+)", body))
    (room,) = map(int, re.findall(r"\((\d+) OPERATOR\(pg_catalog.-\) longest", body))

    assert oversized == min(trigger_body.OVERSIZED, room // 3)
    assert oversized > 1000


@pytest.mark.parametrize("transport", ["notify", "outbox"])
def test_columns_and_routes(transport: str) -> None:
    """What changes only a route is a change, whether ``columns`` names it or not."""
    registration = _wide(options={"project.wide": {"columns": ["shown"]}}, transport=transport)

    assert registration.compared == ("shown", "owner_id")
    assert '"n"."shown", "n"."owner_id")::' in trigger_body.first_body(
        registration, Operation.UPDATE, TABLE
    )
    assert _wide().compared is None


def test_comment() -> None:
    """The comment records the routes; without any it is what earlier versions read and wrote."""
    comment = Comment(label="a.b", routes=("x", "y"))

    assert Comment.parse(comment.text()) == comment
    assert "routes" not in Comment(label="a.b").text()
    assert Comment.parse('pgobserve:1:{"label": "a.b", "routes": null}') is None


def _found(registration: Registration) -> dict[int, dict[str, CatalogEntry]]:
    """Return what the catalog has where that was installed."""
    wanted = compiler.wanted(registration, TABLE, always=False)
    return {
        1: {
            name: CatalogEntry(
                trigger,
                TABLE,
                Comment(
                    label=registration.label,
                    transport=registration.transport,
                    routes=registration.routes,
                    fingerprint=trigger.fingerprint(),
                ),
            )
            for name, trigger in wanted.items()
        }
    }


def test_status() -> None:
    """Triggers that lack wanted routes are outdated; the status names the routes."""
    wanted = _wide("owner_id", "shown")
    status = drift.compare(wanted, TABLE, _found(_wide("shown")))

    assert status.state is State.OUTDATED
    assert status.detail == (
        "pgobserve_i on public.project_wide does not send the values of owner_id, so each change "
        "makes the server read every watched row again that may depend on it"
    )
    assert drift.compare(wanted, TABLE, _found(wanted)).state is State.OK


def test_status_of_more_than_is_wanted() -> None:
    """Triggers that send more than is wanted are outdated too, and lack nothing."""
    status = drift.compare(_wide("shown"), TABLE, _found(_wide("owner_id", "shown")))

    assert (status.state, status.detail) == (
        State.OUTDATED,
        "pgobserve_i on public.project_wide",
    )


def test_status_of_the_outbox() -> None:
    """A table that writes to the outbox sends all values already."""
    wanted = _wide("owner_id", transport="outbox")
    without = registry.build([shapes.Wide], transport="outbox")[0]

    assert drift.compare(wanted, TABLE, _found(without)).state is State.OK
    to_outbox = drift.compare(wanted, TABLE, _found(_wide("shown")))
    assert (to_outbox.state, "tell" in to_outbox.detail) == (State.OUTDATED, False)


def test_status_of_a_lost_column() -> None:
    """A route column that the table lacks is reported like a key column."""
    table = TableInfo("public", "project_wide", types=(ColumnInfo("id"),), oid=1)
    status = drift.compare(_wide(), table, _found(_wide()))

    assert status.state is State.OUTDATED
    assert (
        status.detail == "public.project_wide has no column owner_id: run manage.py migrate first"
    )


def test_migration() -> None:
    """A migration contains the bodies and comments of routes."""
    text = migration_file.write("project", [], [(_wide(), TABLE, False)])

    assert text.count('],"r":{"owner_id":[') == 2 * len(WRITES)
    assert text.count('"routes": ["owner_id"]') == 4
