"""Arrays are taken apart as they were written, and pages are as large as they should be."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgobserve.feed import outbox
from pgobserve.feed.cursor import Cursor, Why
from pgobserve.feed.pace import FALLBACK, POLL, SETTLE, Pace
from pgobserve.feed.snapshot import Snapshot

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
HERE = Cursor(Snapshot(5, 5, frozenset()))


@given(st.lists(JSON), st.sampled_from([None, 1]))
def test_elements(values: list[Any], indent: int | None) -> None:
    """Each element comes with its text."""
    elements = list(outbox.elements(json.dumps(values, indent=indent)))

    assert [value for _, value in elements] == values
    assert [json.loads(text) for text, _ in elements] == values


def test_elements_keep_digits() -> None:
    """Numbers keep the digits that they were written with."""
    text = '[{"a":1.10}, {"a":12345678901234567890.5}]'

    assert [each for each, _ in outbox.elements(text)] == [
        '{"a":1.10}',
        '{"a":12345678901234567890.5}',
    ]
    assert outbox.keys("[1.10, 7]") == (Decimal("1.10"), 7)


@pytest.mark.parametrize("text", ["[1", "[1,", '["a', "", "[1 2"])
def test_garbled(text: str) -> None:
    """What is no array raises."""
    with pytest.raises((ValueError, IndexError)):
        list(outbox.elements(text))


def row(xid: int | None, *, at: int = 0, found: int = 1, horizon: str = "1:1:") -> list[Any]:
    """Return a row of an answer."""
    return ["9:9:", horizon, 0, False, 0, 0, xid, "a.b", "I", None, at, "[1]", None, "[{}]", found]


def test_empty_answer() -> None:
    """An answer without entries moves the cursor."""
    page = outbox.page([row(None)], HERE, 3)

    assert (page.entries, page.more) == ((), False)
    assert page.cursor == Cursor(Snapshot(9, 9, frozenset()))
    assert page.before == HERE


def test_full_page() -> None:
    """A page that has all that it may have is not the last."""
    page = outbox.page([row(6, at=1, found=2), row(7, at=2, found=2)], HERE, 2)

    assert page.more
    assert [entry.xid for entry in page.entries] == [6, 7]
    assert page.cursor.seen == HERE.seen
    assert outbox.parameters(page.cursor)["after_xid"] == 7
    assert outbox.page([row(6, at=1)], HERE, 2).more is False


def test_broken() -> None:
    """A page of a cursor that can't be gone on from has no entries, whatever there is."""
    page = outbox.page([row(6, horizon="8:8:")], HERE, 2)

    assert (page.why, page.entries, page.more) == (Why.RETENTION, (), False)
    assert page.cursor == Cursor(Snapshot(9, 9, frozenset()))


def test_page_that_was_cut() -> None:
    """Nor is one of which the images were too many."""
    page = outbox.page([row(6, at=1, found=2)], HERE, 10)

    assert page.more
    assert page.cursor.place is not None
    assert page.cursor.place.xid == 6


def test_pace() -> None:
    """After something came the next look is soon, then later and later."""
    pace = Pace()
    pace.note(1, full=False)
    assert pace.delay == SETTLE
    for _ in range(10):
        before = pace.delay
        pace.note(0, full=False)
        assert before <= pace.delay <= FALLBACK
    assert pace.delay == FALLBACK
    pace.note(1, full=False)
    assert pace.delay == SETTLE
    pace.note(1, full=True)
    assert pace.delay == FALLBACK


def test_pace_without_wake_ups() -> None:
    """Where nobody sends a wake-up it is never long."""
    pace = Pace(poll=True)
    for _ in range(10):
        pace.note(0, full=False)
        assert pace.delay <= POLL
