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
    assert status.command.endswith(" --database other") is (each not in (State.OK, State.CLASH))
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
