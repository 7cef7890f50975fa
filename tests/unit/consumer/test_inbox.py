"""What waits for a socket's turn."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from pgobserve._consumer.inbox import Inbox
from pgobserve.exceptions import ClientDisconnected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest


def noting(notes: list[Any], note: Any) -> Callable[[], Awaitable[None]]:
    async def call() -> None:
        notes.append(note)

    return call


async def emptied(inbox: Inbox) -> None:
    """Wait until all that was put so far is done."""
    done = asyncio.Event()

    async def last() -> None:
        done.set()

    inbox.put("last", last)
    await asyncio.wait_for(done.wait(), 60)


async def test_keeps_the_order() -> None:
    """Calls are made one after the other, as they were put."""
    inbox, notes = Inbox(), []

    async def slow() -> None:
        notes.append("slow begins")
        await asyncio.sleep(0)
        notes.append("slow ends")

    inbox.put("slow", slow)
    inbox.put("quick", noting(notes, "quick"))
    await emptied(inbox)

    assert notes == ["slow begins", "slow ends", "quick"]
    assert len(inbox) == 0


async def test_waits_for_the_turn() -> None:
    """Nothing is called while something else happens on the socket."""
    inbox, notes = Inbox(), []

    async with inbox.turn:
        inbox.put("call", noting(notes, "called"))
        for _ in range(5):
            await asyncio.sleep(0)
        notes.append("turn ends")
    await emptied(inbox)

    assert notes == ["turn ends", "called"]


async def test_frames_take_turns_with_calls() -> None:
    """What waits for its turn does not wait for the whole inbox."""
    inbox, notes = Inbox(), []

    async def frame() -> None:
        async with inbox.turn:
            notes.append("frame")

    async with inbox.turn:
        for n in range(3):
            inbox.put("call", noting(notes, n))
        await asyncio.sleep(0)
        task = asyncio.create_task(frame())
        await asyncio.sleep(0)
    await task
    await emptied(inbox)

    assert notes.index("frame") < 2


async def test_goes_on_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """What a call raises is logged with its name, and the next call is made."""
    inbox, notes = Inbox(), []

    async def fails() -> None:
        raise RuntimeError("no")

    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    inbox.put("First", fails)
    inbox.put("Second", cancels_itself)
    inbox.put("third", noting(notes, "third"))
    await emptied(inbox)

    assert notes == ["third"]
    assert [r.message for r in caplog.records if r.levelno == logging.ERROR] == [
        "First failed; the socket stays open.",
        "Second cancelled itself; the socket stays open.",
    ]


async def test_a_client_that_left_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """That nobody is there to be told is not logged as an error."""
    inbox = Inbox()

    async def leaves() -> None:
        raise ClientDisconnected

    inbox.put("call", leaves)
    await emptied(inbox)

    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_closes() -> None:
    """At the end what is called is cancelled, the rest forgotten, and farewells are said once."""
    inbox, notes = Inbox(), []
    begun = asyncio.Event()

    async def hangs() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            notes.append("cancelled")

    inbox.put("hangs", hangs)
    inbox.put("never", noting(notes, "never"))
    inbox.on_close(lambda: notes.append("farewell"))
    await begun.wait()
    await inbox.aclose()
    await inbox.aclose()
    inbox.put("late", noting(notes, "late"))
    await asyncio.sleep(0)

    assert notes == ["farewell", "cancelled"]


async def test_closes_from_within() -> None:
    """A call may end the socket that it is made for."""
    inbox, notes = Inbox(), []

    async def ends() -> None:
        await inbox.aclose()
        notes.append("ended")

    inbox.put("ends", ends)
    inbox.put("never", noting(notes, "never"))
    async with inbox.turn:
        pass
    while not notes:  # noqa: ASYNC110
        await asyncio.sleep(0)

    assert notes == ["ended"]
