"""What the listener makes of numbers and texts; its connection is tested with a real server."""

from __future__ import annotations

import asyncio
import re
import socket
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pgobserve.hub.hub import Hub
from pgobserve.listen.intake import Intake, ListenerState, NotificationReader
from pgobserve.listen.listener import QUEUE_WARNING, Listener
from pgobserve.listen.payload import parse
from pgobserve.wire import QUEUE_FULL

if TYPE_CHECKING:
    import pytest


def listener() -> Listener:
    """Return a listener that does not run."""
    return Listener(dict, "pgobserve", print, lambda gap: None)


async def test_queue_filling_up(caplog: pytest.LogCaptureFixture) -> None:
    """That the notification queue fills is logged each time it begins, and so is its end."""
    each = listener()
    for usage in (0.0, QUEUE_WARNING, 0.5, 0.02, 0.0, 0.3):
        each._note_usage(usage)

    queue = "The notification queue of database 'default'"
    messages = [record.getMessage() for record in caplog.records]
    assert [text.split(":")[0] for text in messages] == [
        f"{queue} is 1.0 % full",
        f"{queue} has drained to 0.0 %.",
        f"{queue} is 30.0 % full",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert each.state.queue_usage == 0.3


async def test_full_queue_is_a_gap() -> None:
    """While triggers keep silent, and when that may be over, all that is watched is read again."""
    gaps: list[float] = []
    each = Listener(dict, "pgobserve", lambda _: None, lambda gap: gaps.append(usage))
    for usage in (0.2, 0.6, 0.89, QUEUE_FULL, 0.95, 0.7, 0.4, 0.1):
        each._note_usage(usage)

    assert gaps == [QUEUE_FULL, 0.95, 0.4]


async def test_ignored_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The first notification that can't be used is logged, all are counted."""
    each = listener()
    intake = Intake(Hub(), each.ignore, lambda: None)
    for payload in ("x", "y"):
        intake.take(payload)

    assert each.state.ignored == 2
    (record,) = caplog.records
    assert "ignored a notification on channel pgobserve: not JSON: 'x'" in record.getMessage()


async def test_recovery_is_logged_like_the_loss(caplog: pytest.LogCaptureFixture) -> None:
    """The first connection is news; after a loss the next one is logged at the level of the loss."""
    caplog.set_level("INFO")
    each = Listener(dict, "c", lambda _: None, lambda gap: "9 rows are read" * gap, alias="other")
    each._connected()
    each._lost(OSError("gone"))
    each._lost(OSError("still gone"))
    each._connected()

    assert [(record.levelname, record.alias) for record in caplog.records] == [  # type: ignore[attr-defined]
        ("INFO", "other"),
        ("WARNING", "other"),
        ("WARNING", "other"),
    ]
    live, lost, again = (record.getMessage() for record in caplog.records)
    assert live == "The feed of database 'other' is live on channel c."
    assert lost.startswith("The feed of database 'other' lost its LISTEN connection: gone.")
    assert re.fullmatch(
        r".*'other' is live again on channel c after \d\.\d s; 9 rows are read\.", again
    )


class Notes:
    """A connection on which notifications have come."""

    def __init__(self, count: int) -> None:
        payload = '{{"v":1,"t":"a.b","o":"I","x":"1","k":[{}]}}'
        self._notes = deque(
            SimpleNamespace(relname=b"pgobserve", extra=payload.format(n).encode(), be_pid=1)
            for n in range(count)
        )
        self.pgconn = self
        self.info = SimpleNamespace(encoding="utf-8")

    def consume_input(self) -> None:
        """Nothing more comes."""

    def add_notify_handler(self, handler: Any) -> None:
        """No notification arrives with an answer."""

    def notifies(self) -> Any:
        return self._notes.popleft() if self._notes else None


async def test_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many notifications some are heard in each turn of the event loop, all in order."""
    monkeypatch.setattr("pgobserve.listen.intake.SLICE", 0.0)
    payloads: list[str] = []
    state, connection = ListenerState(), Notes(20)
    reader = NotificationReader(connection, "pgobserve", state, payloads.append)  # type: ignore[arg-type]
    lost = asyncio.get_running_loop().create_future()
    turns = 0
    while len(payloads) < 20:
        reader.read(lost)  # as the event loop calls it
        turns += 1
        await asyncio.sleep(0)

    assert [parse(payload).keys for payload in payloads] == [(str(n),) for n in range(20)]
    assert state.notifications == 20
    assert turns >= 10


async def test_heartbeat_amid_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat between two slices delays the notifications that are left, and does not stop them."""
    monkeypatch.setattr("pgobserve.listen.intake.SLICE", 0.0)
    payloads: list[str] = []
    all_of_them = asyncio.Event()

    def receive(payload: str) -> None:
        payloads.append(payload)
        if len(payloads) == 20:
            all_of_them.set()

    listener = Listener(dict, "pgobserve", receive, lambda _: None, heartbeat=0)
    monkeypatch.setattr(listener, "_beat", lambda _: asyncio.sleep(0))
    monkeypatch.setattr(listener, "_probe", lambda: asyncio.sleep(0))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection: Any = Notes(20)
        connection.fileno = ours.fileno
        draining = asyncio.create_task(listener._drain(connection))
        try:
            async with asyncio.timeout(20):
                await all_of_them.wait()
        finally:
            draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)
