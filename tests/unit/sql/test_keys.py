"""From JSON to the values that the ORM has; nothing here is to be trusted."""

from __future__ import annotations

import datetime
import json
import uuid
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgobserve.hub.identity import key_text
from pgobserve.sql.keys import (
    from_text,
    key_fields,
    key_of,
    shown,
    to_key,
)
from tests.project import keys as more
from tests.project import shapes
from tests.project.models import Item

if TYPE_CHECKING:
    from pgobserve.sql.keys import Model

UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")


MODELS: list[Model] = [
    Item,
    more.TinyKey,
    more.ItemKey,
    more.FloatKey,
    more.AddressKey,
    shapes.SmallKey,
    shapes.UuidKey,
    shapes.TextKey,
    shapes.DateKey,
    shapes.MomentKey,
    shapes.TimeKey,
    shapes.AmountKey,
    shapes.PairKey,
    shapes.Pizzeria,
]


@pytest.mark.parametrize(
    ("model", "given", "key"),
    [
        (Item, 7, 7),
        (Item, "7", 7),
        (Item, " -7 ", -7),
        (Item, Decimal("7.0"), 7),
        (Item, 2**63 - 1, 2**63 - 1),
        (more.TinyKey, 2**15 - 1, 2**15 - 1),
        (more.ItemKey, "7", 7),
        (shapes.Pizzeria, "7", 7),
        (shapes.SmallKey, -(2**31), -(2**31)),
        (shapes.UuidKey, str(UUID), UUID),
        (shapes.UuidKey, UUID.hex.upper(), UUID),
        (shapes.TextKey, "", ""),
        (shapes.TextKey, "\U0001f600é\"\\' %s \n", "\U0001f600é\"\\' %s \n"),
        (shapes.DateKey, "2024-02-29", datetime.date(2024, 2, 29)),
        (shapes.TimeKey, "12:30:00.5", datetime.time(12, 30, 0, 500_000)),
        (shapes.AmountKey, Decimal("1.50"), Decimal("1.5")),
        (shapes.AmountKey, "1.5", Decimal("1.50")),
        (shapes.AmountKey, 3, Decimal(3)),
        (shapes.PairKey, ["a", 1], ("a", 1)),
    ],
)
def test_key(model: Model, given: Any, key: Any) -> None:
    """A JSON value is the key that the ORM would have, of the ORM's type."""
    found = to_key(model, given)

    assert found == key
    assert type(found) is type(key)
    assert hash(found) == hash(key)


def test_one_moment_in_two_zones() -> None:
    """One moment is one key, in whichever time zone it is told; without one it is the project's."""
    told = ["2024-07-01T12:00:00+00:00", "2024-07-01T14:00:00+02:00", "2024-07-01T07:00:00"]
    keys = {to_key(shapes.MomentKey, text) for text in told}

    assert keys == {datetime.datetime(2024, 7, 1, 12, tzinfo=datetime.UTC)}


@pytest.mark.parametrize(
    ("model", "given"),
    [
        *((model, None) for model in MODELS),
        *((model, True) for model in MODELS),
        *((model, {}) for model in MODELS),
        *((model, []) for model in MODELS),
        (Item, ""),
        (Item, "x"),
        (Item, "1.5"),
        (Item, 1.5),
        (Item, float("inf")),
        (Item, float("nan")),
        (Item, Decimal("inf")),
        (Item, Decimal("nan")),
        (Item, Decimal("snan")),
        (Item, Decimal("1.5")),
        (Item, Decimal("1e30")),
        (Item, Decimal("1e1000000")),
        (Item, Decimal("1e-1000000")),
        (Item, 2**63),
        (Item, -(2**63) - 1),
        (Item, "9" * 20),
        (Item, "9" * 5000),
        (Item, "\N{ARABIC-INDIC DIGIT FIVE}"),
        (Item, "1_0"),
        (Item, [1]),
        (more.TinyKey, 2**15),
        (more.TinyKey, -(2**15) - 1),
        (more.ItemKey, 2**63),
        (shapes.Pizzeria, 2**63),
        (shapes.Pizzeria, 1.5),
        (shapes.SmallKey, 2**31),
        (shapes.UuidKey, "x"),
        (shapes.UuidKey, 2**128),
        (shapes.UuidKey, -1),
        (shapes.TextKey, "a\x00b"),
        (shapes.TextKey, "\ud800"),
        (shapes.DateKey, "2024-02-30"),
        (shapes.DateKey, "infinity"),
        (shapes.DateKey, 1),
        (shapes.MomentKey, "infinity"),
        (shapes.MomentKey, "2024-01-01T25:00:00Z"),
        (shapes.TimeKey, "24:00:01"),
        (shapes.AmountKey, "NaN"),
        (shapes.AmountKey, "sNaN"),
        (shapes.AmountKey, "-Infinity"),
        (shapes.AmountKey, "x"),
        (more.FloatKey, "nan"),
        (more.FloatKey, "inf"),
        (more.FloatKey, 10**400),
        (more.AddressKey, "1.2.3"),
        (shapes.PairKey, ["a"]),
        (shapes.PairKey, ["a", 1, 2]),
        (shapes.PairKey, ["a", None]),
        (shapes.PairKey, ["a", ["b"]]),
        (shapes.PairKey, ["a", 2**31]),
        (shapes.PairKey, ["\x00", 1]),
        (shapes.PairKey, "a1"),
    ],
)
def test_no_key(model: Model, given: Any) -> None:
    """What no row can have as its key is a ValueError, before it meets the database."""
    with pytest.raises(ValueError, match=r"."):
        to_key(model, given)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text(st.characters())
    | st.from_regex(r"\A[-+0-9eET:. naif]{0,30}\Z")
)


@pytest.mark.parametrize("model", MODELS)
@given(given=SCALARS | st.lists(SCALARS, min_size=2, max_size=2))
def test_raises_nothing_else(model: Model, given: Any) -> None:
    """Any value is a key or a ValueError; a key has a hash, and is its own key."""
    with suppress(ValueError):
        key = to_key(model, given)
        hash(key)
        assert to_key(model, list(key) if isinstance(key, tuple) else key) == key


def test_key_of_what_was_not_loaded() -> None:
    """An instance that was built holds its key as it was given; its key is the same all the same."""
    assert key_of(shapes.UuidKey(id=str(UUID))) == UUID
    assert key_of(shapes.PairKey(left="a", right=1)) == ("a", 1)
    assert key_of(shapes.DateKey(id="2024-02-29")) == datetime.date(2024, 2, 29)
    assert key_of(more.ItemKey(item_id="7")) == 7


def test_key_fields() -> None:
    """The primary key's fields are one, those of a composite key, or a parent's link."""
    assert [f.attname for f in key_fields(Item)] == ["id"]
    assert [f.attname for f in key_fields(shapes.PairKey)] == ["left", "right"]
    assert [f.attname for f in key_fields(shapes.Pizzeria)] == ["restaurant_ptr_id"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (7, 7),
        ("a", "a"),
        (1.5, 1.5),
        (UUID, str(UUID)),
        (Decimal("1.50"), "1.50"),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (("a", UUID), ["a", str(UUID)]),
    ],
)
def test_shown(key: Any, expected: Any) -> None:
    """A frame shows a key as JSON has it, else as text."""
    assert shown(key) == expected
    assert json.loads(json.dumps(shown(key))) == expected


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (Item, 7),
        (Item, -(2**63)),
        (shapes.Pizzeria, 2**53 + 1),
        (shapes.UuidKey, str(UUID)),
        (shapes.TextKey, ""),
        (shapes.TextKey, '["a","1"]'),
        (shapes.DateKey, "2024-02-29"),
        (shapes.TimeKey, "12:30:00.5"),
        (shapes.MomentKey, "2024-07-01T14:00:00+02:00"),
        (shapes.AmountKey, "1.50"),
        (more.FloatKey, 0.1),
        (more.AddressKey, "::1"),
        (shapes.PairKey, ["a", 1]),
        (more.TripleKey, ["2024-07-01T14:00:00+02:00", "1.50", str(UUID)]),
    ],
)
def test_from_text(model: Model, given: Any) -> None:
    """The text of a key leads back to it."""
    key = to_key(model, given)

    assert from_text(model, key_text(key)) == key


@pytest.mark.parametrize(
    "text", ["", "x", "01", "+1", " 1", "1.0", "[1]", "null", "9" * 30, "\x00"]
)
def test_text_of_no_key(text: str) -> None:
    """A text that is not exactly that of a key stays one: a client files rows under the exact text."""
    assert from_text(Item, text) == text


@pytest.mark.parametrize("text", ["[1, 2]", "[[1],2]", "{}", "[" * 5000, '["1"]'])
def test_text_of_no_composite_key(text: str) -> None:
    """The same of a key of several fields."""
    assert from_text(shapes.PairKey, text) == text
