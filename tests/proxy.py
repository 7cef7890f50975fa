"""A TCP proxy that a test can stop, cut and freeze: what networks do to connections."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class _Link:
    """One connection through the proxy."""

    def __init__(self, near: asyncio.StreamWriter, *, flows: bool) -> None:
        self.near = near
        self.far: asyncio.StreamWriter | None = None
        self.flow = asyncio.Event()
        if flows:
            self.flow.set()

    def abort(self) -> None:
        for end in (self.near, self.far):
            if end is not None:
                end.transport.abort()


class Proxy:
    """
    Forwards bytes between clients on 127.0.0.1 and a server, until told otherwise.

    Use it as an asynchronous context manager. Frozen, it takes everything and passes nothing on:
    both ends see a peer that is alive, by TCP's means, and silent; a close is not passed on either.

    Args:
        host: Of the server; a directory names its Unix-domain socket, as with libpq.
        port: Of the server.

    Attributes:
        port: Where it listens; it stays the same when stopped and started.
        accepted: Connections so far.
        frozen: Set when it freezes, by a call or by :meth:`freeze_at`.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._freeze_at: bytes | None = None
        self.port = 0
        self.accepted = 0
        self.frozen = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Take connections (again)."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def aim(self, host: str, port: int) -> None:
        """Forward new connections to another server; those that exist stay where they are."""
        self._target = (host, port)

    async def stop(self) -> None:
        """Cut all connections, and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Cut all connections, as a reset does; new ones are taken."""
        for link in self._links:
            link.abort()

    def freeze(self, *, new: bool = True) -> None:
        """
        Pass nothing on.

        Args:
            new: Nothing of connections yet to come, either.
        """
        if new:
            self.frozen.set()
        for link in self._links:
            link.flow.clear()

    def thaw(self) -> None:
        """Pass everything on that came meanwhile, and go on."""
        self._freeze_at = None
        self.frozen.clear()
        for link in self._links:
            link.flow.set()

    def freeze_at(self, text: bytes) -> None:
        """Freeze as soon as a client has sent this, before it is passed on."""
        self._freeze_at = text

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        link = _Link(writer, flows=not self.frozen.is_set())
        self._links.add(link)
        # OSError: either end was reset, or the server is not there.
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                far_reader, link.far = await self._open()
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(reader, link.far, link, watch=True))
                    group.create_task(self._pump(far_reader, writer, link))
        except* OSError:
            pass
        finally:
            link.abort()
            self._links.discard(link)
            self._tasks.discard(task)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._target
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        link: _Link,
        *,
        watch: bool = False,
    ) -> None:
        while True:
            data = await source.read(65536)
            if watch and self._freeze_at is not None and self._freeze_at in data:
                self._freeze_at = None
                self.freeze()
            await link.flow.wait()
            if not data:
                raise ConnectionResetError
            sink.write(data)
            await sink.drain()
