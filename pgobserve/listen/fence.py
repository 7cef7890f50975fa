"""
Marks behind everything committed so far.

PostgreSQL delivers notifications in commit order. When a mark sent by NOTIFY comes back, the listener has
received every change committed before it. The outbox has no such order: its reader must reach the snapshot
in which the mark was sent.

Marks are sent on demand. Requests that arrive while a mark is under way share the next mark.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from contextvars import Context
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from django.db import Error, connections

from pgobserve.errors import FeedUnavailable
from pgobserve.logs import fields
from pgobserve.sql.keyed_query import SNAPSHOT
from pgobserve.wire import FENCE, PAYLOAD_VERSION
from pgobserve.workers.retrying import backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pgobserve.hub.snapshot import Snapshot

logger = logging.getLogger(__name__)

#: Seconds after which the fence sends another mark: one can be lost without a sign.
MARK_TIMEOUT: Final = 5.0


@dataclass(eq=False)
class Fence:
    """
    Sends marks, and reports when everything committed before them has been received.

    Args:
        send: Sends a mark of the given name, or nothing where no connection listens. Returns the
            snapshot of its statement.
        reached: Returns when the outbox reader, if there is one, has read everything visible in a
            snapshot.
        listens: Whether marks come back.
        timeout: Seconds after which another mark is sent.

    Attributes:
        rounds: Marks sent so far.
    """

    _send: Callable[[str], Awaitable[Snapshot]]
    _reached: Callable[[Snapshot], Awaitable[object]]
    _: KW_ONLY
    listens: bool
    alias: str = "default"
    timeout: float = MARK_TIMEOUT
    rounds: int = 0
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)
    _served: list[asyncio.Future[None]] = field(default_factory=list)
    _users: int = 0
    _task: asyncio.Task[None] | None = None
    # Marks of this round: a late one proves as much as the last one.
    _names: set[str] = field(default_factory=set)
    _returned: asyncio.Event = field(default_factory=asyncio.Event)
    _gaps: int = 0

    async def passed(self) -> None:
        """
        Return when everything that was committed before this call has been received.

        Raises:
            FeedUnavailable: The feed is being stopped.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._users += 1
        if self._task is None:
            # An empty context: the first request must not lend its own to later ones.
            self._task = asyncio.create_task(
                self._work(), name="pgobserve-fence", context=Context()
            )
        try:
            await future
        finally:
            self._users -= 1
            if not self._users:
                self._end()

    def receive(self, keys: tuple[Any, ...] | None) -> None:
        """Take a received mark. Marks of other processes have other names."""
        if self._names and keys and self._names.intersection(k for k in keys if type(k) is str):
            self._returned.set()

    def restart(self) -> None:
        """Send another mark: changes, and the mark with them, may have been lost."""
        self._gaps += 1
        self._returned.set()

    def close(self) -> None:
        """Fail all waiting requests, and stop sending marks."""
        for future in (*self._waiting, *self._served):
            if not future.done():
                future.set_exception(FeedUnavailable("the feed is being stopped"))
        self._end()

    def _end(self) -> None:
        task, self._task = self._task, None
        self._waiting, self._served = [], []
        self._names.clear()
        if task is not None:
            task.cancel()

    async def _work(self) -> None:
        while self._waiting:
            self._served, self._waiting = self._waiting, []
            try:
                await self._round()
            except Exception as error:  # noqa: BLE001 (each waiting request raises it)
                for future in self._served:
                    if not future.done():
                        future.set_exception(error)
            for future in self._served:
                if not future.done():
                    future.set_result(None)
            self._served = []
        self._task = None

    async def _round(self) -> None:
        delays = backoff()
        try:
            while True:
                if await self._attempt():
                    return
                if not self._returned.is_set():  # after a gap at once
                    await asyncio.sleep(next(delays))
        finally:
            self._names.clear()

    async def _attempt(self) -> bool:
        """Send one mark; return whether it came back without a gap."""
        gaps, name = self._gaps, uuid.uuid4().hex
        self._names.add(name)
        self._returned.clear()
        self.rounds += 1
        try:
            async with asyncio.timeout(self.timeout):
                snapshot = await self._send(name)
                if self.listens:
                    await self._returned.wait()
                if gaps == self._gaps:
                    await self._reached(snapshot)
        except (FeedUnavailable, Error) as error:
            logger.debug(
                "No mark can be sent to database %r for now: %s",
                *(self.alias, error),
                extra=fields(alias=self.alias),
            )
            return False
        except TimeoutError:
            return False
        return gaps == self._gaps


def write_mark(alias: str, channel: str | None, name: str) -> tuple[str, float]:
    """
    NOTIFY a mark, in a thread.

    Args:
        channel: The channel. None where no connection LISTENs: then nothing is sent.
        name: The mark's name, which a listener receives as its key.

    Returns:
        The text of the statement's snapshot, and the used share of the notification queue.
    """
    with connections[alias].cursor() as cursor:
        if channel is None:
            cursor.execute(f"SELECT {SNAPSHOT}, 0::float8")
            return cursor.fetchone()  # type: ignore[no-any-return]
        mark = {"v": PAYLOAD_VERSION, "t": FENCE, "o": "I", "x": "0", "k": [name]}
        cursor.execute(
            f"SELECT {SNAPSHOT}, pg_catalog.pg_notification_queue_usage(), "
            "pg_catalog.pg_notify(%s, %s)",
            [channel, json.dumps(mark)],
        )
        snapshot, usage, _ = cursor.fetchone()
        return snapshot, usage
