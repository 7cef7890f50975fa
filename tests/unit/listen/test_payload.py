"""Reading payloads: anyone may NOTIFY on our channel."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgobserve.errors import PayloadInvalid
from pgobserve.listen.payload import parse
from pgobserve.wire import Change, Operation

GOOD = {"v": 1, "t": "shop.order", "o": "U", "x": "42", "k": [1]}


def payload(**other: Any) -> str:
    """Return a payload that differs from a good one."""
    return json.dumps({**GOOD, **other})


def test_reads_all() -> None:
    """Every part of a payload is in the change."""
    assert parse(payload(s="other")) == Change("shop.order", Operation.UPDATE, 42, ("1",), "other")


@pytest.mark.parametrize("operation", list(Operation))
def test_operations(operation: Operation) -> None:
    """Each operation is known."""
    assert parse(payload(o=operation)).operation is operation


def test_no_keys() -> None:
    """Null keys, or none at all, mean: read the table again."""
    assert parse(payload(k=None)).keys is None
    assert parse('{"v":1,"t":"a.b","o":"T","x":"1"}').keys is None


def test_empty_keys() -> None:
    """An empty list of keys concerns no row."""
    assert parse(payload(k=[])).keys == ()


def test_composite_keys() -> None:
    """A composite key has several texts."""
    assert parse(payload(k=[["a", 1], ["b", 2]])).keys == (("a", "1"), ("b", "2"))


def test_keys_are_texts() -> None:
    """A key is the text that the trigger wrote, whether it is a number in JSON or a string."""
    text = '{"v":1,"t":"a.b","o":"U","x":"1","k":[0.1000000000000000055511151231257827]}'

    assert parse(text).keys == ("0.1000000000000000055511151231257827",)
    digits = "9" * 5000
    assert parse(f'{{"v":1,"t":"a.b","o":"U","x":"1","k":[{digits}]}}').keys == (digits,)


def test_largest_transaction() -> None:
    """A transaction id may use all 64 bits."""
    assert parse(payload(x=str(2**64 - 1))).xid == 2**64 - 1


def test_unknown_parts_are_ignored() -> None:
    """A later writer may add parts of its own."""
    assert parse(payload(c={"parent": [1]})) == parse(payload())


def test_routes() -> None:
    """Old and new values of columns come by column; without any it is not known that there are none."""
    text = '{"v":1,"t":"a.b","o":"U","x":"1","k":[],"r":{"book_id":[1,2],"price":[1.10],"of":[]}}'

    assert parse(text).routes == {"book_id": ("1", "2"), "price": ("1.10",), "of": ()}
    assert parse(payload(r={})).routes == {}
    assert parse(payload()).routes is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "1",
        '"x"',
        "{}",
        payload(v=2),
        payload(t=None),
        payload(t=["a.b"]),
        payload(s=["a"]),
        payload(o="X"),
        payload(o=None),
        payload(o=["U"]),
        payload(x=None),
        payload(x=""),
        payload(x="-1"),
        payload(x="1.5"),
        payload(x="٤٢"),
        payload(x="9" * 21),
        "[" * 7999,
    ],
)
def test_invalid(text: str) -> None:
    """What is no payload is refused with a message that is fit for a log."""
    with pytest.raises(PayloadInvalid) as caught:
        parse(text)

    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "keys",
    [1, "abc", {"a": 1}, [None], [True], [{}], [[]], [[[1]]], [[None]], [1, None], [float("nan")]],
)
def test_unknown_keys(keys: Any) -> None:
    """What are no keys may be any: the table is read again."""
    assert parse(payload(k=keys)).keys is None


@pytest.mark.parametrize("routes", [None, [1], "book_id", {str(n): [] for n in range(1601)}])
def test_unknown_routes(routes: Any) -> None:
    """What are no routes counts as unknown."""
    assert parse(payload(r=routes)).routes is None


@pytest.mark.parametrize("values", [1, None, [None], [{}], {"1": 1}, [float("nan")]])
def test_unknown_values_of_a_route(values: Any) -> None:
    """A column whose values are not known is left out, so that all rows that it may lead to are read."""
    assert parse(payload(r={"book_id": values, "of": [1]})).routes == {"of": ("1",)}


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)


@given(st.text() | VALUES.map(json.dumps))
def test_any_text(text: str) -> None:
    """Whatever the text is, the only error is PayloadInvalid."""
    with suppress(PayloadInvalid):
        parse(text)


@given(st.dictionaries(st.sampled_from("vtoxksr"), VALUES))
def test_any_content(other: dict[str, Any]) -> None:
    """Whatever the parts are, the only error is PayloadInvalid."""
    with suppress(PayloadInvalid):
        parse(payload(**other))


@pytest.mark.parametrize("part", ["k", "o", "x", "t", "r"])
def test_any_depth(part: str) -> None:
    """However deep a part is nested, the only error is PayloadInvalid."""
    rest = json.dumps({name: value for name, value in GOOD.items() if name != part})[:-1]
    for depth in [*range(3, 60), *range(800, 1010), *range(1100, 3900, 100)]:
        with suppress(PayloadInvalid):
            parse(f'{rest}, "{part}": {"[" * depth}{"]" * depth}}}')
