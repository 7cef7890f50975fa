"""What names rows and their states on the wire."""

from __future__ import annotations

import datetime
import re
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgobserve.hub.identity import (
    NO_NAMES,
    Names,
    etag_of,
    key_text,
)
from pgobserve.hub.outcome import View

UTC = datetime.datetime(2024, 7, 1, 12, tzinfo=datetime.UTC)
EAST = UTC.astimezone(datetime.timezone(datetime.timedelta(hours=2)))
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (7, "7"),
        (2**53 + 1, "9007199254740993"),
        ("é", "é"),
        (ID, str(ID)),
        (("a", 1), '["a","1"]'),
        ((ID, Decimal("1.50")), f'["{ID}","1.5"]'),
        (b"\x01\xff", "01ff"),
        (memoryview(b"\x01\xff"), "01ff"),
    ],
)
def test_text(key: Any, text: str) -> None:
    """A key is text, whatever it is made of."""
    assert key_text(key) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Decimal("1.50"), Decimal("1.5")),
        (Decimal(100), Decimal("1E2")),
        (Decimal("-0"), Decimal("0.00")),
        (0.0, -0.0),
        (UTC, EAST),
        ((UTC, 1), (EAST, 1)),
    ],
)
def test_equal_keys(one: Any, other: Any) -> None:
    """Keys that are equal have one text: rows are found by equality."""
    assert one == other
    assert key_text(one) == key_text(other)


@given(st.lists(st.text(), min_size=2, max_size=2), st.lists(st.text(), min_size=2, max_size=2))
def test_different_keys(one: list[str], other: list[str]) -> None:
    """Keys of several parts that differ have texts that differ, whatever the parts contain."""
    assert (key_text(tuple(one)) == key_text(tuple(other))) is (one == other)


def test_etag() -> None:
    """An etag is short text, the same for the same body and in all processes."""
    assert etag_of('{"id":1}') == View.of('{"id":1}').etag == "1ea450d66dcfc383"
    assert re.fullmatch("[0-9a-f]{16}", etag_of("é"))
    assert etag_of("a") != etag_of("b")


def test_no_names() -> None:
    """Rows without names are filed under their keys."""
    assert NO_NAMES.rename(1, None) is None
    assert (NO_NAMES.of(1), NO_NAMES.key_of(1), NO_NAMES.holds(1)) == (1, 1, True)


def test_renamed() -> None:
    """A row that has another name leaves its old one."""
    names = Names()
    assert names.rename(1, "a") is None
    assert names.rename(1, "a") is None
    assert names.rename(1, "b") == "a"
    assert (names.of(1), names.key_of("b")) == ("b", 1)
    assert names.rename(1, None) is None
    assert names.of(1) == "b"


def test_swapped() -> None:
    """Of rows that swap their names none leaves the name that the other has by now."""
    names = Names()
    names.replace({1: "a", 2: "b"})

    assert names.rename(1, "b") == "a"
    assert not names.holds(2)
    assert names.rename(2, "a") is None
    assert (names.holds(1), names.holds(2)) == (True, True)
    assert (names.key_of("a"), names.key_of("b")) == (2, 1)


def test_taken_over() -> None:
    """A row that is gone does not take away the name that another one has received since."""
    names = Names()
    names.replace({1: "a"})
    assert names.rename(2, "a") is None
    assert not names.holds(1)
    names.forget(1)

    assert names.key_of("a") == 2
    names.forget(2)
    assert (names.of(2), names.key_of("a")) == (2, "a")
