"""The listener, and all that can happen to its connection."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.wire import Change, Operation
from tests.integration.conftest import (
    CHANNEL,
    Ear,
    Writer,
    payload,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgobserve.demo.postgres import Server
    from tests.proxy import Proxy

Start = "Callable[..., Ear]"


async def test_change(ear: Start, writer: Writer) -> None:
    """A notification on the channel is a change; one on another channel is nothing."""
    each = ear()
    await each.until_live()
    writer.notify(payload(1), channel="other")
    writer.notify(payload(7, 42))
    await each.until(lambda: each.changes)

    assert each.changes == [Change("project.item", Operation.UPDATE, 42, ("7",))]
    assert each.lives == [False]
    assert each.listener.state.live
    assert (each.listener.state.notifications, each.listener.state.ignored) == (1, 0)


async def test_garbage(ear: Start, writer: Writer) -> None:
    """Garbled notifications are counted, the first is logged, and nothing stops."""
    each = ear()
    await each.until_live()
    writer.notify("", "{", "null", "[" * 7999, '{"v":2}', "\x1b[2J", payload(1))
    await each.until(lambda: each.changes)

    assert each.keys == ["1"]
    assert (each.listener.state.notifications, each.listener.state.ignored) == (7, 6)
    assert len([text for text in each.logs if "ignored a notification" in text]) == 1


async def test_flood(ear: Start, writer: Writer) -> None:
    """Of 100,000 notifications in one transaction every one is heard, in order."""
    each = ear()
    await each.until_live()
    writer.rows(
        f"SELECT pg_notify('{CHANNEL}', replace(%s, '\"k\":[0]', '\"k\":[' || n || ']')) "
        "FROM generate_series(1, 100000) n",
        payload(0),
    )
    await each.until(lambda: len(each.changes) == 100_000)

    assert each.keys == [*map(str, range(1, 100_001))]
    assert each.lives == [False]


async def test_live_means_listening(ear: Start, writer: Writer) -> None:
    """What is committed from the moment on that it calls itself live is heard."""
    each = ear()
    each.on_live = lambda: writer.notify(payload(1))
    await each.until(lambda: each.changes)

    assert each.keys == ["1"]


async def test_terminated(ear: Start, writer: Writer) -> None:
    """A terminated backend is an interruption: live again, it says that changes may be missed."""
    each = ear()
    await each.until_live()
    assert writer.terminate() == 1
    await each.until_live(2)
    writer.notify(payload(2))
    await each.until(lambda: each.changes)

    assert each.lives == [False, True]
    assert each.keys == ["2"]
    assert each.listener.state.gaps == 1
    assert each.listener.state.error is None
    assert writer.listener()


async def test_logged_at_changes_only(ear: Start, writer: Writer, proxy: Proxy) -> None:
    """That it is lost is logged once, however many attempts fail, and that it is live, too."""
    each = ear(host="127.0.0.1", port=proxy.port)
    await each.until_live()
    await proxy.stop()
    await each.until(lambda: sum("reconnects in" in text for text in each.logs) >= 4)
    await proxy.start()
    await each.until_live(2)

    told = [text for text in each.logs if "reconnects in" not in text]
    assert [re.split(": | after", text)[0] for text in told] == [
        f"The feed of database 'default' is live on channel {CHANNEL}.",
        "The feed of database 'default' lost its LISTEN connection",
        f"The feed of database 'default' is live again on channel {CHANNEL}",
    ]
    assert each.listener.state.gaps == 1


async def test_state_while_lost(ear: Start, proxy: Proxy) -> None:
    """While it is not live the state says so, and why."""
    each = ear(host="127.0.0.1", port=proxy.port)
    await each.until_live()
    await proxy.stop()
    await each.until(lambda: any("lost" in text for text in each.logs))

    assert not each.listener.state.live
    assert not each.listener.live.is_set()
    assert each.listener.state.error


async def test_never_there(ear: Start, proxy: Proxy) -> None:
    """It tries until the server is there; that there was none is a gap as well."""
    await proxy.stop()
    each = ear(host="127.0.0.1", port=proxy.port)
    await each.until(lambda: sum("reconnects in" in text for text in each.logs) >= 3)
    assert each.lives == []
    await proxy.start()
    await each.until_live()

    assert each.lives == [True]
    assert each.listener.state.gaps == 0


async def test_cut(ear: Start, writer: Writer, proxy: Proxy) -> None:
    """A cut connection is made again."""
    each = ear(host="127.0.0.1", port=proxy.port)
    await each.until_live()
    proxy.cut()
    await each.until_live(2)
    writer.notify(payload(2))
    await each.until(lambda: each.changes)

    assert each.lives == [False, True]


async def test_silent(ear: Start, writer: Writer, proxy: Proxy) -> None:
    """A connection that is open and silent is given up; the next one is used."""
    each = ear(host="127.0.0.1", port=proxy.port, heartbeat=0.5)
    await each.until_live()
    proxy.freeze(new=False)
    writer.notify(payload(1))
    await each.until_live(2)
    writer.notify(payload(2))
    await each.until(lambda: each.changes)

    assert each.keys == ["2"]
    assert each.lives[:2] == [False, True]
    assert any("silent" in text for text in each.logs)


@pytest.mark.parametrize(
    "at", [b"pg_is_in_recovery", b"tcp_user_timeout", b"LISTEN", b"pg_notify", b"UNLISTEN"]
)
async def test_silent_at_the_start(ear: Start, writer: Writer, proxy: Proxy, at: bytes) -> None:
    """A connection that goes silent while it is prepared is given up as well."""
    proxy.freeze_at(at)
    each = ear(host="127.0.0.1", port=proxy.port, heartbeat=0.5, connect_timeout=2)
    await asyncio.wait_for(proxy.frozen.wait(), 60)
    await each.until(lambda: any("has no LISTEN connection" in text for text in each.logs))
    assert each.lives == []
    proxy.thaw()
    await each.until_live()
    writer.notify(payload(1))
    await each.until(lambda: each.changes)

    assert each.lives[0]


async def test_silence_is_not_an_error(ear: Start, writer: Writer) -> None:
    """A connection on which nothing happens stays, and the queue's usage is asked meanwhile."""
    each = ear(heartbeat=3.0)
    await each.until_live()
    pid = writer.listener()
    seen = asyncio.Event()
    each.listener._note_usage = lambda usage: seen.set()  # type: ignore[method-assign]
    await asyncio.wait_for(seen.wait(), 60)

    assert writer.listeners() == [pid]
    assert each.lives == [False]


@pytest.fixture
def stopped() -> Iterator[Callable[[int], None]]:
    """Return a function that stops a backend as a hang does; it goes on in the end."""
    pids = []

    def stop(pid: int) -> None:
        try:
            ours = b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            ours = False
        if not ours:
            pytest.skip("the server's processes are not ours to stop")
        os.kill(pid, signal.SIGSTOP)
        pids.append(pid)

    yield stop
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


async def test_frozen_backend(ear: Start, writer: Writer, stopped: Callable[[int], None]) -> None:
    """A backend that hangs is left for another one."""
    each = ear(heartbeat=0.5)
    await each.until_live()
    pid = writer.listener()
    stopped(pid)
    await each.until_live(2)
    writer.notify(payload(2))
    await each.until(lambda: each.changes)

    assert each.lives[:2] == [False, True]
    assert pid not in writer.listeners()[1:]


async def test_server_restarted(ear: Start, own_server: Server) -> None:
    """After a crash of the whole server it listens again."""
    given = own_server.parameters()
    each = ear(**given)
    await each.until_live()
    options = ("-D", own_server.directory, "-m", "immediate", "-w")
    control = own_server.bin / "pg_ctl"
    log = own_server.directory / "log"
    await asyncio.to_thread(run, control, *options, "-l", log, "restart", cwd=own_server.directory)
    await each.until_live(2)
    writer = Writer(given)
    writer.notify(payload(2))
    await each.until(lambda: each.changes)

    assert each.lives == [False, True]
    writer.connection.close()


async def test_names_may_change(ear: Start, writer: Writer, proxy: Proxy) -> None:
    """The parameters are asked for at each attempt."""
    each = ear()
    ports = iter([1, 1])
    working = each.listener._parameters()
    each.listener._parameters = lambda: {**working, "port": next(ports, working["port"])}
    await each.until_live()

    assert each.lives == [True]


async def test_pool_is_named(ear: Start, bouncer: Callable[[str], dict[str, Any]]) -> None:
    """Behind a transaction pool it is never live, and says what to do."""
    each = ear(**bouncer("transaction"))
    await each.until(lambda: any("reconnects in" in text for text in each.logs))

    assert each.lives == []
    assert "PGOBSERVE['CONNECTION']" in (each.listener.state.error or "")


async def _when_live(each: Ear, proxy: Proxy) -> None:
    await each.until_live()


async def _when_silent(each: Ear, proxy: Proxy) -> None:
    await each.until_live()
    proxy.freeze()


async def _when_asking(each: Ear, proxy: Proxy) -> None:
    await each.until_live()
    proxy.freeze_at(b"queue_usage")
    await asyncio.wait_for(proxy.frozen.wait(), 60)


async def _when_preparing(each: Ear, proxy: Proxy) -> None:
    proxy.freeze_at(b"LISTEN")
    await asyncio.wait_for(proxy.frozen.wait(), 60)


async def _when_probing(each: Ear, proxy: Proxy) -> None:
    proxy.freeze_at(b"pg_notify")
    await asyncio.wait_for(proxy.frozen.wait(), 60)


async def _when_connecting(each: Ear, proxy: Proxy) -> None:
    proxy.freeze_at(b"application_name")
    await asyncio.wait_for(proxy.frozen.wait(), 60)


async def _when_waiting_to_try_again(each: Ear, proxy: Proxy) -> None:
    await proxy.stop()
    await each.until(lambda: any("reconnects in" in text for text in each.logs))


@pytest.mark.parametrize(
    "moment",
    [
        _when_live,
        _when_silent,
        _when_asking,
        _when_preparing,
        _when_probing,
        _when_connecting,
        _when_waiting_to_try_again,
    ],
)
async def test_end(ear: Start, writer: Writer, proxy: Proxy, moment: Any) -> None:
    """Ended at any moment it waits for nobody, and leaves no task and no connection."""
    before = asyncio.all_tasks()
    heartbeat = 0.5 if moment is _when_asking else 30.0
    each = ear(host="127.0.0.1", port=proxy.port, heartbeat=heartbeat, connect_timeout=30)
    await moment(each, proxy)
    await each.aclose()

    left = {task.get_name() for task in asyncio.all_tasks() - before}
    assert not {name for name in left if name.startswith("pgobserve")}
    assert not each.listener.state.live
    assert not each.listener.live.is_set()
    await proxy.stop()
    await asyncio.to_thread(writer.until_alone)
