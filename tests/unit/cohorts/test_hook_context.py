"""What a hook may see of a Python context, taken into other threads, and what tells two of them apart."""

from __future__ import annotations

import asyncio
import decimal
import threading
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from asgiref.local import Local
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.cache import caches
from django.utils import timezone, translation
from django.utils.functional import SimpleLazyObject

from pgobserve.cohorts.hook_context import HookContext

if TYPE_CHECKING:
    from collections.abc import Callable

variable: ContextVar[Any] = ContextVar("variable")
local = Local()


def of(function: Callable[[], object]) -> HookContext:
    """Return the context in which a function was called, and nothing else."""

    def current() -> HookContext:
        function()
        return HookContext.current()

    return Context().run(current)


def in_thread(function: Callable[[], Any]) -> Any:
    """Call a function in another thread."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def seen() -> tuple[Any, ...]:
    """Return what a hook may look at."""
    zone = str(timezone.get_current_timezone())
    return variable.get(None), getattr(local, "user", None), translation.get_language(), zone


def activate() -> None:
    """Do what a middleware does."""
    variable.set("seven")
    local.user = "ada"
    translation.activate("de")
    timezone.activate("Asia/Tokyo")


def test_is_entered_in_another_thread() -> None:
    """A thread sees the variables, asgiref's locals, the language and the time zone of the socket."""
    context = of(activate)

    assert in_thread(lambda: context.run(seen)) == ("seven", "ada", "de", "Asia/Tokyo")


def test_ends_with_the_call() -> None:
    """What a hook activates is gone for the next one."""
    context = of(lambda: None)
    before = context.run(seen)

    context.run(activate)

    assert context.run(seen) == before


PLAIN = of(lambda: None)

NOTHING: dict[str, Callable[[], object]] = {
    "a language that is the default": lambda: translation.activate("en-us"),
    "a language and back": lambda: (
        translation.override("de").__enter__() or translation.activate("en-us")
    ),
    "arithmetic": lambda: decimal.Decimal(1) / 3,
    "the cache": lambda: caches["default"],
    "an empty local": lambda: (setattr(local, "user", "ada"), delattr(local, "user")),
    "a thread for synchronous code": lambda: asyncio.run(sync_to_async(seen)()),
}


@pytest.mark.parametrize("what", NOTHING)
def test_says_nothing(what: str) -> None:
    """What Django, asgiref and Python put into a context tells no socket from another."""
    assert of(NOTHING[what]).key == PLAIN.key


ANOTHER: dict[str, Callable[[], object]] = {
    "a variable": lambda: variable.set("seven"),
    "an asgiref local": lambda: setattr(local, "user", "ada"),
    "the language": lambda: translation.activate("de"),
    "the time zone": lambda: timezone.activate(ZoneInfo("Asia/Tokyo")),
    "another rounding": lambda: setattr(decimal.getcontext(), "prec", 3),
    "no language": translation.deactivate_all,
}


@pytest.mark.parametrize("what", ANOTHER)
def test_tells_apart(what: str) -> None:
    """Whatever a hook may see makes another context."""
    assert of(ANOTHER[what]).key != PLAIN.key


EQUAL: dict[str, Callable[[], Any]] = {
    "text": lambda: "".join(["a", "b"]),
    "number": lambda: 10**20,
    "tuple": lambda: (1, "a", (2.5, None)),
    "row": lambda: User(pk=1, username="ada", date_joined=None),
    "zone": lambda: ZoneInfo("Asia/Tokyo"),
}


class Name(str):  # noqa: SLOT000 (its attributes are the point)
    """Text that has more to it."""


def named(text: str) -> Name:
    name = Name(text)
    name.schema = object()  # type: ignore[attr-defined]
    return name


UNEQUAL: dict[str, Callable[[], Any]] = {
    "dictionary": lambda: {"tenant": 7},
    "object": object,
    "tuple of lists": lambda: ([1],),
    "text with attributes": lambda: named("7"),
    "lazy object": lambda: SimpleLazyObject(lambda: pytest.fail("evaluated")),
}


@pytest.mark.parametrize("what", EQUAL)
def test_equal_values(what: str) -> None:
    """Two sockets with equal values that can't change have the same context."""
    first, second = (of(lambda: variable.set(EQUAL[what]())) for _ in range(2))

    assert first.key == second.key


@pytest.mark.parametrize("what", UNEQUAL)
def test_values_that_may_change(what: str) -> None:
    """Of what can change, or can't be looked at, each object is another."""
    first, second = (of(lambda: variable.set(UNEQUAL[what]())) for _ in range(2))

    assert first.key != second.key


def test_types_are_told_apart() -> None:
    """True is not 1."""
    assert of(lambda: variable.set(1)).key != of(lambda: variable.set(True)).key


def test_rows_of_one_key() -> None:
    """A user who has other rights by now is another one."""
    before = of(lambda: variable.set(User(pk=1, is_staff=True, date_joined=None)))
    after = of(lambda: variable.set(User(pk=1, is_staff=False, date_joined=None)))

    assert before.key != after.key


def test_ignored_variables(settings: Any) -> None:
    """Variables that the project says no hook reads don't count."""
    settings.PGOBSERVE = {"IGNORED_CONTEXT_VARIABLES": ["variable"]}

    assert of(lambda: variable.set(object())).key == of(lambda: None).key


def test_left_by_hooks() -> None:
    """A context is another one once a hook has activated something that counts."""
    context = of(lambda: None)
    here = context.here()
    before = here.copy()

    here.run(lambda: decimal.Decimal(1) / 3)
    assert context.left_by(here, before) is context

    here.run(activate)
    left = context.left_by(here, before)
    assert in_thread(lambda: left.run(seen)) == ("seven", "ada", "de", "Asia/Tokyo")
