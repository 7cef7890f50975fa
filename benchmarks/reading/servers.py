"""Server processes."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.reading.databases import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Applications to serve.
OURS = "benchmarks.reading.asgi:application"
BARE = "benchmarks.reading.bare:application"
BARE_LIST = "benchmarks.reading.bare_list:application"
DCRF = "benchmarks.reading.dcrf_asgi:application"
EVENTS = "benchmarks.reading.events_asgi:application"
DCRF_EVENTS = "benchmarks.reading.dcrf_events_asgi:application"


class Process:
    """A running server."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def memory(self) -> int:
        """Return the bytes that it holds in memory now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def cpu(self) -> float:
        """Return the seconds of CPU that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100


@contextlib.contextmanager
def serving(
    application: str, parameters: dict[str, Any], *, server: str = "uvicorn", **env: str
) -> Iterator[Process]:
    """
    Serve an application on loopback for a ``with`` block.

    Args:
        application: One of those above.
        parameters: Of its database.
        server: ``uvicorn`` or ``daphne``.
        **env: More for the environment.
    """
    port = _free_port()
    command = [sys.executable, "-m", server, application]
    if server == "uvicorn":
        # No pings: a client that doesn't read is what is measured, not one that is cut off.
        command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
        command += ["--ws-ping-interval", "3600", "--no-access-log"]
    else:
        command += ["-b", "127.0.0.1", "-p", str(port), "-v0", "--ping-interval", "3600"]
    with subprocess.Popen(command, env=environment(parameters, **env)) as process:
        try:
            _wait_for(port, process)
            yield Process(port, process)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError("The server did not start.")
