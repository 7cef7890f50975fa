"""What a loader thread is busy with."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pgobserve.workers.occupation import (
    HookFailed,
    Interrupted,
    as_hook,
    contained,
    occupation,
)


class Consumer:
    """The class of a hook."""


def test_names_the_hook() -> None:
    """While a hook runs its class and name are known, and afterwards that none runs."""
    at = occupation()

    assert as_hook(Consumer, "get_queryset", lambda: str(at)) == "Consumer.get_queryset"
    assert str(at) == "no hook"


def test_ends_with_an_error() -> None:
    """A hook that raises does not go on being what the thread is busy with."""
    with pytest.raises(ZeroDivisionError):
        as_hook(Consumer, "get_queryset", lambda: 1 / 0)

    assert occupation().owner is None


def test_each_hook_is_a_step() -> None:
    """Two calls of one hook differ in their steps: a thread that calls it again is not stuck."""
    at = occupation()

    assert as_hook(Consumer, "hook", lambda: at.steps) != as_hook(
        Consumer, "hook", lambda: at.steps
    )


def test_of_one_thread() -> None:
    """Each thread has its own."""
    found = []
    thread = threading.Thread(target=lambda: found.append(occupation()))
    thread.start()
    thread.join()

    assert found[0] is not occupation()


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), SystemExit(3), KeyboardInterrupt(), GeneratorExit()]
)
def test_contains_what_is_no_exception(error: BaseException) -> None:
    """What would end a task or the process becomes an exception, which names it as its cause."""
    failed = contained(error)

    assert isinstance(failed, HookFailed)
    assert failed.__cause__ is error
    assert type(error).__name__ in str(failed)


def test_contains_stop_iteration() -> None:
    """StopIteration would end the generator that it reaches; it is contained as well."""
    assert isinstance(contained(StopIteration()), HookFailed)


def test_exceptions_stay() -> None:
    """An ordinary exception is itself."""
    error = ValueError("x")

    assert contained(error) is error


def test_interruption_passes() -> None:
    """A thread that is to stop does stop."""
    with pytest.raises(Interrupted):
        contained(Interrupted())
