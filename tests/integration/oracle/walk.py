"""A random walk: sockets of some kinds, random writes, and a comparison after each step."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import User
from django.db import connection

from tests.integration.deliver.conftest import settled
from tests.integration.oracle.kinds import KINDS
from tests.integration.oracle.socket import Differs, Socket, State
from tests.integration.oracle.writes import Writer, keys_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Languages and time zones of sockets; few, for those who speak the same share.
LOCALES = ((None, None), ("de", "Asia/Tokyo"), ("fr", "America/New_York"))


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Run what uses the database, in a thread that keeps no connection."""

    def run() -> Any:
        with contextlib.closing(connection):
            return function(*args)

    return await asyncio.to_thread(run)


class Walk:
    """
    One walk.

    Args:
        seed: Of all that is random in it.
        names: The kinds of the consumers.
        steps: How many steps it has.
        localized: Sockets have languages and time zones of their own.
    """

    def __init__(
        self, seed: int, names: Sequence[str], steps: int, *, localized: bool = True
    ) -> None:
        self._localized = localized
        self._draw = random.Random(seed)
        self._kinds = [KINDS[name] for name in names]
        self._steps = steps
        self._writer = Writer(random.Random(seed))
        self._sockets: list[Socket] = []
        self._keys: dict[Any, list[Any]] = {}

    async def run(self) -> None:
        """
        Walk.

        Raises:
            Differs: The feed sent to a socket what its own actions do not say.
        """
        await in_thread(self._writer.prepare)
        users = await in_thread(lambda: [*User.objects.order_by("id")])
        try:
            for kind in self._kinds:
                for user in self._draw.sample(users, 2):
                    await self._open(kind, user)
            await self._look()
            for number in range(self._steps):
                await self._step(number)
        finally:
            await asyncio.gather(*(socket.aclose() for socket in self._sockets))

    async def _open(self, kind: Any, user: User) -> None:
        draw = self._draw
        language, zone = draw.choice(LOCALES) if self._localized else LOCALES[0]
        scope = {
            "user": user,
            "language": language,
            "zone": zone,
            "tenant": user.username if kind.tenant else None,
            "speaks": draw.choice(LOCALES[1:]),
        }
        socket = Socket(kind, scope, draw.choice(kind.asks), random.Random(draw.random()))
        self._sockets.append(socket)
        await socket.open()

    async def _step(self, number: int) -> None:
        transactions = self._draw.choice([1, 1, 1, 2, 3])
        await asyncio.gather(*(self._wish(socket) for socket in self._sockets))
        try:
            async with asyncio.TaskGroup() as group:
                for socket in self._sockets:
                    group.create_task(self._come_and_go(socket))
                for _ in range(transactions):
                    # What permissions ask must not change between the read and the question.
                    await in_thread(lambda: self._writer.transact(groups=transactions == 1))
                    await self._look()
            if self._writer.emptied:
                # A snapshot from before a TRUNCATE has no rows after it: neither the old nor the new.
                for socket in self._sockets:
                    socket.states.insert(1, State(200, {}, {}))
            await self._compare()
        except* Differs as errors:
            said = "\n  ".join(self._writer.said)
            first = errors.exceptions[0]
            raise Differs(f"{first}\nin step {number}, after:\n  {said}") from None
        self._writer.said.clear()
        self._writer.emptied = False

    async def _compare(self) -> None:
        await settled()
        for socket in self._sockets:
            await socket.rest()
        for socket in self._sockets:
            await socket.compare()

    async def _wish(self, socket: Socket) -> None:
        await socket.wish(socket.draw.choice(self._keys[socket.kind.model]))

    async def _come_and_go(self, socket: Socket) -> None:
        """Subscribe and unsubscribe, while others write."""
        draw = socket.draw.random
        for lists in socket.draw.sample([True, False], 2):
            there = [name for name, it in socket.replicas.items() if (it.key is None) == lists]
            if not there or (len(there) < 3 and draw() < 0.5 - 0.4 * lists):
                only = socket.draw.choice([None, None, None, "keys", "count"])
                await socket.subscribe(*((None, only) if lists else (socket.wished,)))
            elif draw() < 0.1:
                await socket.unsubscribe(there[0])

    async def _look(self) -> None:
        models = {kind.model for kind in self._kinds}
        self._keys = {model: await in_thread(keys_of, model) for model in models}
        await asyncio.gather(*(s.look(self._keys[s.kind.model]) for s in self._sockets))
