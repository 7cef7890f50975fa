"""How the catalog is judged, without a catalog."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pgobserve.triggers import compiler, registry
from pgobserve.triggers.server import drift
from pgobserve.triggers.server.drift import State, Status
from pgobserve.triggers.trigger_values import (
    CatalogEntry,
    ColumnInfo,
    Comment,
    TableInfo,
    Trigger,
)
from tests.project.models import Item

COLUMNS = tuple(map(ColumnInfo, ("id", "name", "rank")))
PART = TableInfo("public", "part", oid=2)
TABLE = TableInfo("public", "project_item", types=COLUMNS, oid=1)
ROOT = replace(TABLE, kind="p", parts=(PART,))
(ITEM,) = registry.build([Item])

#: States that no command mends; the advice says what does.
WITHOUT_COMMAND = {State.OK, State.CLASH, State.NOT_A_TABLE, State.COLUMNS, State.KEY}


def _found(table: TableInfo = TABLE, **changes: Trigger) -> dict[str, CatalogEntry]:
    """Return the triggers as they are wanted, but for those given by name."""
    wanted = compiler.wanted(ITEM, TABLE, always=False)
    return {
        name: CatalogEntry(
            changes.get(name, trigger),
            table,
            Comment(label="project.item", fingerprint=trigger.fingerprint()),
        )
        for name, trigger in wanted.items()
    }


def _judge(found: dict[int, dict[str, CatalogEntry]], table: TableInfo = TABLE) -> State:
    return drift.compare(ITEM, table, found).state


UPDATE = compiler.wanted(ITEM, TABLE, always=False)["pgobserve_u"]


def _comment_of(trigger: Trigger) -> Comment:
    return Comment(label="project.item", fingerprint=trigger.fingerprint())


def test_ok() -> None:
    """All as wanted is ok, with or without partitions."""
    assert _judge({1: _found()}) is State.OK
    assert _judge({1: _found(), 2: _found(PART)}, ROOT) is State.OK


def test_missing_is_worse_than_disabled() -> None:
    """The worst of several states wins."""
    found = _found(pgobserve_u=replace(UPDATE, enabled="D"))
    assert _judge({1: found}) is State.DISABLED
    del found["pgobserve_i"]
    assert _judge({1: found}) is State.MISSING


def test_tampered_or_outdated() -> None:
    """The installation's fingerprint shows whether a trigger was changed later."""
    changed = replace(UPDATE, source="BEGIN RETURN NULL; END")
    by_us = {**_found(), "pgobserve_u": CatalogEntry(changed, TABLE, _comment_of(changed))}

    assert _judge({1: _found(pgobserve_u=changed)}) is State.TAMPERED
    assert _judge({1: by_us}) is State.OUTDATED


def test_partition() -> None:
    """A partition without triggers has its own state, and so has a disabled one."""
    disabled = _found(PART, pgobserve_u=replace(UPDATE, enabled="D"))

    assert _judge({1: _found()}, ROOT) is State.LEAF_MISSING
    assert _judge({1: _found(), 2: disabled}, ROOT) is State.DISABLED


def test_key_column_is_gone() -> None:
    """Triggers that are as wanted but read a column that is gone are not well."""
    status = drift.compare(ITEM, replace(TABLE, types=(ColumnInfo("name"),)), {1: _found()})

    assert status.state is State.OUTDATED
    assert status.detail == "public.project_item has no column id: run manage.py migrate first"


def test_always_is_kept() -> None:
    """What does not say ``always`` is judged by how it was installed."""
    found = {
        name: replace(each, comment=replace(_comment_of(each.trigger), always=True))
        for name, each in _found().items()
    }

    assert drift.is_always(ITEM, found)
    assert not drift.is_always(ITEM, _found())
    assert not drift.is_always(replace(ITEM, always=False), found)


def test_no_table() -> None:
    """A table that does not exist has to be made first."""
    status = drift.compare(ITEM, None, {})

    assert status.state is State.MISSING
    assert status.detail == 'there is no table "project_item": run manage.py migrate first'


@pytest.mark.parametrize("each", list(State))
def test_sentence(each: State) -> None:
    """Every state has a sentence, and all that a command mends have it."""
    status = Status(title="shop.Order", table="public.shop_order", state=each, using="other")

    assert "{" not in status.sentence
    assert status.command.endswith(" --database other") is (each not in WITHOUT_COMMAND)
    assert status.command in status.sentence


def test_sentence_of_missing() -> None:
    """The sentence for an unobserved table is the one that a client receives."""
    status = Status(title="auth.User", table="public.auth_user", state=State.MISSING)

    assert status.sentence == (
        "Changes of auth.User are not observed yet: run manage.py pgobserve install auth.User"
    )


def test_orphans() -> None:
    """Orphans are tables with our triggers, no model, and in our schemas."""
    elsewhere = TableInfo("theirs", "x", oid=4)
    lost = TableInfo("public", "lost", oid=3)
    found: dict[int, dict[str, Any]] = {1: _found(), 3: _found(lost), 4: _found(elsewhere)}

    told = drift.orphans(found, frozenset({1, 2}), frozenset({"public"}))

    assert [(each.title, each.table, each.state) for each in told] == [
        ("project.item", "public.lost", State.ORPHAN)
    ]


def test_view() -> None:
    """No command helps a view. The advice names the tables behind it, and following it helps."""
    view = replace(TABLE, kind="v", behind=("auth_user", "unknown"))

    status = drift.compare(ITEM, view, {})
    half = drift.compare(replace(ITEM, declared={"auth_user"}), view, {})
    declared = drift.compare(replace(ITEM, declared={"auth_user", "unknown"}), view, {})

    assert (status.state, status.command) == (State.NOT_A_TABLE, "")
    assert status.detail.startswith("public.project_item is a view")
    assert "observe_related of the consumer: ['auth.User', 'unknown']" in status.sentence
    assert (half.state, declared.state) == (State.NOT_A_TABLE, State.OK)
    materialized = drift.compare(replace(ITEM, declared={"auth_user"}), replace(view, kind="m"), {})
    assert "a materialized view" in materialized.detail


def test_columns_that_are_left_out() -> None:
    """Columns that a consumer reads and the option leaves out are named, with the readers."""
    registration = replace(
        ITEM, columns=("name",), read={"id": {"a"}, "name": {"a"}, "rank": {"b"}}
    )
    wanted = compiler.wanted(registration, TABLE, always=False)
    found = {name: CatalogEntry(each, TABLE, _comment_of(each)) for name, each in wanted.items()}

    status = drift.compare(registration, TABLE, {1: found})
    complete = drift.compare(replace(registration, read={"name": {"a"}}), TABLE, {1: found})

    assert (status.state, status.command) == (State.COLUMNS, "")
    assert "an UPDATE of rank alone is not published, and b reads it" in status.detail
    assert "Add rank to PGOBSERVE['MODELS']['project.Item']['columns']" in status.sentence
    assert complete.state is State.OK


def test_key_that_is_not_unique() -> None:
    """A key without a unique index is no key; a partitioned table's index may have more columns."""
    found = {1: _found()}

    def state(*sets: str, kind: str = "r") -> State:
        unique = frozenset(frozenset(each.split()) for each in sets)
        return drift.compare(ITEM, replace(TABLE, unique=unique, kind=kind), found).state

    assert state() is state("name", "id rank") is State.KEY
    assert state("name", "id") is state("id rank", kind="p") is State.OK
