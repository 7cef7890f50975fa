"""A context that knows whether it was looked at, whichever way a serializer does it."""

from __future__ import annotations

import copy
import json
import operator
import pickle
from collections import ChainMap
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.render.tracking_context import TrackingContext

if TYPE_CHECKING:
    from collections.abc import Callable

REAL = {"user": "ada", "scope": {}}


@pytest.fixture
def context() -> TrackingContext:
    return TrackingContext(lambda: dict(REAL))


@pytest.fixture
def known() -> TrackingContext:
    """A context of which it is known which keys it has."""
    return TrackingContext(lambda: dict(REAL), REAL.keys())


def by_keyword(**given: Any) -> dict[str, Any]:
    """Return what was given."""
    return given


def by_match(context: Any) -> Any:
    """Take it apart by pattern."""
    match context:
        case {"user": user, **rest}:
            return {"user": user, **rest}
    return None


LOOKS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "item": (lambda c: c["user"], "ada"),
    "itemgetter": (operator.itemgetter("user"), "ada"),
    "get": (lambda c: c.get("user"), "ada"),
    "get missing": (lambda c: c.get("x", 5), 5),
    "in": (lambda c: "user" in c, True),
    "not in": (lambda c: "x" not in c, True),
    "iter": (list, ["user", "scope"]),
    "next": (lambda c: next(iter(c)), "user"),
    "reversed": (lambda c: list(reversed(c)), ["scope", "user"]),
    "sorted": (sorted, ["scope", "user"]),
    "len": (len, 2),
    "bool": (bool, True),
    "not": (operator.not_, False),
    "keys": (lambda c: list(c.keys()), ["user", "scope"]),
    "values": (lambda c: list(c.values()), ["ada", {}]),
    "items": (lambda c: list(c.items()), list(REAL.items())),
    "dict": (dict, REAL),
    "display": (lambda c: {**c}, REAL),
    "comprehension": (lambda c: {k: c[k] for k in c}, REAL),
    "keywords": (lambda c: by_keyword(**c), REAL),
    "keywords and more": (lambda c: by_keyword(x=1, **c), {"x": 1, **REAL}),
    "unpacked": (lambda c: [*c], ["user", "scope"]),
    "pattern": (by_match, REAL),
    "copy": (lambda c: c.copy(), REAL),
    "dict's copy": (dict.copy, REAL),
    "copy.copy": (copy.copy, REAL),
    "or": (lambda c: c | {"x": 1}, {**REAL, "x": 1}),
    "or, reflected": (lambda c: {"x": 1} | c, {"x": 1, **REAL}),
    "or, in place": (lambda c: operator.ior(c, {"user": "bob"})["user"], "bob"),
    "update of another": (lambda c: [d := {}, d.update(c)][0], REAL),
    "==": (lambda c: c == REAL, True),
    "== reflected": (lambda c: c == REAL, True),
    "!=": (lambda c: c != REAL, False),
    "!= reflected": (lambda c: c != {}, True),
    "pickle": (lambda c: pickle.loads(pickle.dumps(c)), REAL),
    "json": (lambda c: json.loads(json.dumps(c)), REAL),
    "json, sorted": (lambda c: json.loads(json.dumps(c, sort_keys=True)), REAL),
    "json, indented": (lambda c: json.loads(json.dumps(c, indent=1)), REAL),
    "format_map": (lambda c: "{user}".format_map(c), "ada"),
    "%": (lambda c: operator.mod("%(user)s", c), "ada"),
    "chain": (lambda c: ChainMap({}, c)["user"], "ada"),
    "proxy": (lambda c: dict(MappingProxyType(c)), REAL),
    "pop": (lambda c: c.pop("user"), "ada"),
    "pop missing": (lambda c: c.pop("x", 5), 5),
    "popitem": (lambda c: c.popitem(), ("scope", {})),
    "setdefault": (lambda c: c.setdefault("user", "x"), "ada"),
    "set": (lambda c: [operator.setitem(c, "user", "bob"), c["user"]][1], "bob"),
    "delete": (lambda c: [operator.delitem(c, "user"), dict(c)][1], {"scope": {}}),
    "update": (lambda c: [c.update(user="bob"), c["user"]][1], "bob"),
    "clear": (lambda c: [c.clear(), dict(c)][1], {}),
}


@pytest.mark.parametrize("way", LOOKS)
def test_look(context: TrackingContext, way: str) -> None:
    """Each way to look gives what a dictionary would, and is noticed."""
    look, expected = LOOKS[way]

    assert look(context) == expected
    assert context.accessed


@pytest.mark.parametrize("way", LOOKS)
def test_look_with_known_keys(known: TrackingContext, way: str) -> None:
    """The same holds where the keys are known; only a look for another key tells nothing."""
    look, expected = LOOKS[way]

    assert look(known) == expected
    assert known.accessed or way in {"get missing", "not in"}


ROUND: dict[str, Callable[[Any], Any]] = {
    "dict's get": lambda c: dict.get(c, "user"),
    "dict's items": lambda c: list(dict.items(c)),
    "dict's len": lambda c: dict.__len__(c),
    "repr": repr,
    "str": str,
    "format": "{}".format,
}


@pytest.mark.parametrize("way", ROUND)
def test_going_round(context: TrackingContext, way: str) -> None:
    """What goes round the methods finds nothing of anybody, before and after a look."""
    before = ROUND[way](context)
    assert "ada" not in repr(before)
    assert before == ROUND[way](TrackingContext(lambda: {"user": "bob"}))

    context["user"]

    assert "ada" not in repr(ROUND[way](context))


def test_not_looked(context: TrackingContext) -> None:
    """To have it, to ask what it is, or to copy a serializer that has it, is no look."""
    assert isinstance(context, dict)
    assert callable(context.get)
    assert copy.deepcopy({"context": context})["context"] is context
    assert not context.accessed


def test_copy_after_is_of_this_audience(context: TrackingContext) -> None:
    """What was copied is a plain dictionary, and writing to it does not come back."""
    taken = context.copy()
    taken["user"] = "bob"

    assert type(taken) is type(copy.copy(context)) is dict
    assert context["user"] == "ada"


def test_built_once_and_late() -> None:
    """The real context is built at the first look, once."""
    built = []
    context = TrackingContext(lambda: built.append(1) or {"a": 1})  # type: ignore[func-returns-value]
    assert built == []

    assert context["a"] == context.get("a") == len(context) == 1
    assert built == [1]


def test_missing_key(context: TrackingContext, known: TrackingContext) -> None:
    """A key that is not there is a KeyError; where the keys are known it is no look."""
    for each in (context, known):
        with pytest.raises(KeyError, match="'x'"):
            each["x"]

    assert context.accessed
    assert not known.accessed


def test_what_a_serializer_puts_in_is_found(known: TrackingContext) -> None:
    """A key that the serializer itself put in is there for it."""
    known["x"] = 1

    assert (known["x"], known.get("x"), "x" in known) == (1, 1, True)
    assert known.accessed


def test_unhashable_look(context: TrackingContext, known: TrackingContext) -> None:
    """A look for what can't be a key is a TypeError, as with a dictionary."""
    for each in (context, known):
        with pytest.raises(TypeError):
            each[[]]  # type: ignore[index]
        with pytest.raises(TypeError):
            hash(each)


def test_error_while_building() -> None:
    """If the context can't be built, that is what the serializer gets, and it counts as a look."""

    def fail() -> dict[str, Any]:
        raise ValueError("no context")

    context = TrackingContext(fail)
    with pytest.raises(ValueError, match="no context"):
        context.get("user")

    assert context.accessed
