"""
Many WebSockets in one process, read with as little work as there can be.

A client library would take longer to read a frame than a server takes to send it, and would be
what is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MASK = bytes(4)  # a mask of zeros leaves the payload as it is
HELLO = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PATIENCE = 60.0


class Connection:
    """One WebSocket."""

    __slots__ = ("_buffer", "last", "listen", "raw")

    def __init__(self, port: int, path: str) -> None:
        self.raw = socket.create_connection(("127.0.0.1", port), 20)
        self.raw.sendall(HELLO.format(path=path).encode())
        self._buffer = b""
        self.last = b""
        #: Called with each frame, if there is somebody to call.
        self.listen: Callable[[bytes], object] | None = None

    def finish_opening(self) -> None:
        """Wait until the server has accepted."""
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := self.raw.recv(65536)):
                raise RuntimeError("The server closed the connection.")
            data += more
        if b" 101 " not in data.partition(b"\r\n")[0]:
            raise RuntimeError(f"No WebSocket: {data[:200]!r}")
        self._buffer = data.partition(b"\r\n\r\n")[2]
        self.raw.setblocking(False)

    def send(self, **content: Any) -> None:
        """Send a JSON frame."""
        data = json.dumps(content).encode()
        size = len(data)
        if size < 126:
            head = bytes([0x81, 0x80 | size])
        elif size < 65536:
            head = bytes([0x81, 0x80 | 126]) + size.to_bytes(2)
        else:
            head = bytes([0x81, 0x80 | 127]) + size.to_bytes(8)
        self.raw.sendall(head + MASK + data)

    def read(self) -> int:
        """Take what has arrived; return the number of whole frames, the last one is kept."""
        data = self.raw.recv(262144)
        if not data:
            raise RuntimeError("The server closed a WebSocket.")
        buffer = self._buffer + data if self._buffer else data
        at, count = 0, 0
        while (end := _end_of_frame(buffer, at)) is not None:
            self.last = buffer[end[0] : end[1]]
            at = end[1]
            count += 1
            if self.listen is not None:
                self.listen(self.last)
        self._buffer = buffer[at:]
        return count

    @property
    def frame(self) -> Any:
        """The last frame's content."""
        return json.loads(self.last)


def _is_answered(frame: bytes) -> bool:
    """Tell whether a frame is not one of a list of which more follows."""
    return bool(frame) and not frame.endswith(b'"more":true}')


def _end_of_frame(buffer: bytes, at: int) -> tuple[int, int] | None:
    if len(buffer) < at + 2:
        return None
    size, begin = buffer[at + 1], at + 2
    if size == 126:
        size, begin = int.from_bytes(buffer[at + 2 : at + 4]), at + 4
    elif size == 127:
        size, begin = int.from_bytes(buffer[at + 2 : at + 10]), at + 10
    end = begin + size
    return (begin, end) if end <= len(buffer) else None


class Sockets:
    """
    Many of them on one server.

    Args:
        port: The server's.
        count: How many.
        path: For each, by its number.
    """

    def __init__(self, port: int, count: int, path: Callable[[int], str]) -> None:
        self._epoll = select.epoll()
        self.all: list[Connection] = []
        self._of_fd: dict[int, Connection] = {}
        for begin in range(0, count, 50):  # a server's backlog is limited
            some = [Connection(port, path(n)) for n in range(begin, min(begin + 50, count))]
            for connection in some:
                connection.finish_opening()
                self._of_fd[connection.raw.fileno()] = connection
                self._epoll.register(connection.raw, select.EPOLLIN)
            self.all += some

    def subscribe(self, key: Callable[[int], int]) -> None:
        """Subscribe each to a row, and wait for the answers."""
        for begin in range(0, len(self.all), 50):
            some = self.all[begin : begin + 50]
            for number, connection in enumerate(some, begin):
                connection.send(action="subscribe_instance", pk=key(number), request_id=1)
            self.receive(len(some))
            for connection in some:
                status = connection.frame.get("response_status", 201)
                if status != 201:
                    raise RuntimeError(f"Not subscribed: {connection.last!r}")

    def ask_each(self, content: Callable[[int], dict[str, Any]], batch: int = 50) -> None:
        """Ask for lists on all, and wait for the answers, which come in one frame or several."""
        for begin in range(0, len(self.all), batch):
            waiting = dict.fromkeys(self.all[begin : begin + batch])
            for number, connection in enumerate(waiting, begin):
                connection.send(action="subscribe_list", request_id=1, **content(number))

            def answered(waiting: dict[Connection, None] = waiting) -> bool:
                for each in [each for each in waiting if _is_answered(each.last)]:
                    del waiting[each]
                return not waiting

            self.receive_until(answered)

    def receive(self, count: int) -> list[int]:
        """Wait for that many frames; return when each arrived, in nanoseconds."""
        moments: list[int] = []
        deadline = time.monotonic() + PATIENCE
        while len(moments) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(moments)} of {count} frames arrived.")
            moments += [moment for _, moment in self.poll(1.0)]
        return moments

    def receive_until(self, done: Callable[[], bool]) -> tuple[int, int]:
        """Read until it is done; return the number of frames and when the last one arrived."""
        count, last = 0, time.monotonic_ns()
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise RuntimeError("It did not end.")
            frames = self.poll(0.05)
            if frames:
                count, last = count + len(frames), frames[-1][1]
        return count, last

    def poll(self, seconds: float) -> list[tuple[Connection, int]]:
        """Return the frames that arrive next, as connections, and when each did."""
        found: list[tuple[Connection, int]] = []
        for descriptor, _ in self._epoll.poll(seconds):
            connection = self._of_fd[descriptor]
            found += [(connection, time.monotonic_ns())] * connection.read()
        return found

    def drain(self) -> None:
        """Read until nothing has come for a while."""
        while self.poll(0.3):
            pass

    def close(self) -> None:
        """Cut all connections."""
        for connection in self.all:
            connection.raw.close()
        self._epoll.close()


@contextlib.contextmanager
def sockets(
    port: int, count: int, path: str | Callable[[int], str] = "/feed/"
) -> Iterator[Sockets]:
    """Open many WebSockets for a ``with`` block."""
    given = (lambda _: path) if isinstance(path, str) else path
    made = Sockets(port, count, given)
    try:
        yield made
    finally:
        made.close()


def allow_descriptors() -> int:
    """Raise this process's limit of open files, which servers inherit; return it."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else os.sysconf("SC_OPEN_MAX")
