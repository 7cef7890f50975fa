"""Arrays are taken apart as they were written, and pages are as large as they should be."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgobserve.hub.snapshot import Snapshot
from pgobserve.outbox import outbox_page
from pgobserve.outbox.cursor import Cursor, GapReason
from pgobserve.outbox.outbox_page import OutboxRecord, qualified
from pgobserve.outbox.outbox_pages import FALLBACK, POLL, SETTLE, next_delay
from pgobserve.outbox.outbox_reader import changes_of
from pgobserve.wire import ALONE, MAX_KEYS, Namespace, Operation

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
HERE = Cursor(Snapshot(5, 5, frozenset()))


@given(st.lists(JSON), st.sampled_from([None, 1]))
def test_elements(values: list[Any], indent: int | None) -> None:
    """Each element comes with its text."""
    elements = list(outbox_page.elements(json.dumps(values, indent=indent)))

    assert [value for _, value in elements] == values
    assert [json.loads(text) for text, _ in elements] == values


def test_elements_keep_digits() -> None:
    """Numbers keep the digits that they were written with."""
    text = '[{"a":1.10}, {"a":12345678901234567890.5}]'

    assert [each for each, _ in outbox_page.elements(text)] == [
        '{"a":1.10}',
        '{"a":12345678901234567890.5}',
    ]
    assert outbox_page.keys('[1.10, "7", ["a", 1]]') == ("1.10", "7", ("a", "1"))
    assert outbox_page.keys("[null]") is None


@pytest.mark.parametrize("text", ["[1", "[1,", '["a', "", "[1 2"])
def test_garbled(text: str) -> None:
    """What is no array raises."""
    with pytest.raises((ValueError, IndexError)):
        list(outbox_page.elements(text))


def entry(**other: Any) -> OutboxRecord:
    """Return an entry of two rows, one of which moved."""
    known = {
        "xid": 7,
        "label": "shop.line",
        "operation": Operation.UPDATE,
        "at": datetime(2026, 11, 24, tzinfo=UTC),
        "keys": "[1, 2]",
        "old": '[{"id":1,"order_id":5,"price":1.10}, {"id":2,"order_id":null,"price":1.10}]',
        "new": '[{"id":1,"order_id":6,"price":1.10}, {"id":2,"order_id":5,"price":2}]',
        "last": 0,
    }
    return OutboxRecord(**{**known, **other})


def test_values() -> None:
    """Values before and after are told once each, nulls not at all, numbers as they were written."""
    assert outbox_page.values(entry(), ["order_id", "price"]) == {
        "order_id": ("6", "5"),
        "price": ("1.10", "2"),
    }
    assert outbox_page.values(entry(), []) == {}


def test_values_of_a_changed_key() -> None:
    """A row that is missing on one side has its values on the other."""
    moved = entry(keys="[1, 9]", old='[{"a":1}, null]', new='[null, {"a":2}]')

    assert outbox_page.values(moved, ["a"]) == {"a": ("2", "1")}
    assert outbox_page.values(entry(old=None, new='[{"a":2}]'), ["a"]) == {"a": ("2",)}
    assert outbox_page.values(entry(old='[{"a":1}]', new=None), ["a"]) == {"a": ("1",)}


@pytest.mark.parametrize("new", ['[{"a":1}, {"b":1}]', '[{"a":[1]}]', '[{"a":{}}]'])
def test_values_that_are_not_known(new: str) -> None:
    """Of a column that a row lacks, or that holds no scalars, nothing is said, not even "none"."""
    assert outbox_page.values(entry(old=None, new=new), ["a"]) == {}


def test_values_without_images() -> None:
    """Without images there are no values."""
    assert outbox_page.values(entry(old=None, new=None), ["a"]) is None


def test_changes_tell_routes() -> None:
    """Changes of the tables whose routes are wanted tell them; others do not."""
    entries = [entry(), entry(label="shop.shop")]
    line, shop = changes_of(entries, {"shop.line": ["order_id"]})

    assert (line.keys, line.routes) == (("1", "2"), {"order_id": ("6", "5")})
    assert (shop.keys, shop.routes) == (("1", "2"), None)
    assert [each.routes for each in changes_of(entries)] == [None, None]


@pytest.mark.parametrize(
    "other",
    [
        {"keys": None, "old": None, "new": None, "operation": Operation.TRUNCATE},
        {"old": None, "new": None},
        {"keys": json.dumps(list(range(MAX_KEYS + 1)))},
    ],
)
def test_changes_without_routes(other: dict[str, Any]) -> None:
    """Where values can't be told, no keys are told either: any row may belong anywhere."""
    (change,) = changes_of([entry(**other)], {"shop.line": ["order_id"]})

    assert (change.keys, change.routes) == (None, None)


def test_many_keys_of_a_transaction() -> None:
    """The limit counts all that a transaction did to a table, whatever the number of statements."""
    half = json.dumps(list(range(MAX_KEYS // 2 + 1)))
    entries = [entry(keys=half), entry(keys=half), entry(xid=8)]
    all_of_them, other = changes_of(entries, {"shop.line": ["order_id"]})

    assert (all_of_them.xid, all_of_them.keys) == (7, None)
    assert (other.xid, other.keys) == (8, ("1", "2"))


def row(xid: int | None, *, at: int = 0, found: int = 1, horizon: str = "1:1:") -> list[Any]:
    """Return a row of an answer."""
    return ["9:9:", horizon, 0, False, 0, 0, xid, "a.b", "I", None, at, "[1]", None, "[{}]", found]


def test_empty_answer() -> None:
    """An answer without entries moves the cursor."""
    page = outbox_page.page([row(None)], HERE, 3)

    assert (page.entries, page.more) == ((), False)
    assert page.cursor == Cursor(Snapshot(9, 9, frozenset()))
    assert page.before == HERE


def test_full_page() -> None:
    """A page that has all that it may have is not the last."""
    page = outbox_page.page([row(6, at=1, found=2), row(7, at=2, found=2)], HERE, 2)

    assert page.more
    assert [entry.xid for entry in page.entries] == [6, 7]
    assert page.cursor.seen == HERE.seen
    assert outbox_page.parameters(page.cursor)["after_xid"] == 7
    assert outbox_page.page([row(6, at=1)], HERE, 2).more is False


def test_broken() -> None:
    """A page of a cursor that can't be gone on from has no entries, whatever there is."""
    page = outbox_page.page([row(6, horizon="8:8:")], HERE, 2)

    assert (page.gap, page.entries, page.more) == (GapReason.RETENTION, (), False)
    assert page.cursor == Cursor(Snapshot(9, 9, frozenset()))


def test_page_that_was_cut() -> None:
    """Nor is one of which the images were too many."""
    page = outbox_page.page([row(6, at=1, found=2)], HERE, 10)

    assert page.more
    assert page.cursor.place is not None
    assert page.cursor.place.xid == 6


def test_pace() -> None:
    """After something came the next look is soon, then later and later."""
    delay = next_delay(FALLBACK, 1, full=False)
    assert delay == SETTLE
    for _ in range(10):
        before, delay = delay, next_delay(delay, 0, full=False)
        assert before <= delay <= FALLBACK
    assert delay == FALLBACK
    assert next_delay(delay, 1, full=False) == SETTLE
    assert next_delay(delay, 1, full=True) == FALLBACK


def test_pace_without_wake_ups() -> None:
    """Where nobody sends a wake-up it is never long."""
    delay = SETTLE
    for _ in range(10):
        delay = next_delay(delay, 0, full=False, poll=True)
        assert delay <= POLL


def test_names_the_schema() -> None:
    """The placeholder becomes the namespace's schema, as an identifier."""
    query = qualified("SELECT slot FROM {schema}.outbox", Namespace("shop"))

    assert query.as_string() == 'SELECT slot FROM "pgobserve_shop".outbox'


def test_each_namespace_has_its_own() -> None:
    """What is remembered for one namespace is never used for another."""
    text = "SELECT 1 FROM {schema}.outbox_gate"

    assert qualified(text, ALONE) != qualified(text, Namespace("shop"))
    assert qualified(text, ALONE) is qualified(text, ALONE)
