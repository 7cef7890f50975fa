"""Run the demo as a user does: from some directory, in a process of its own."""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.acceptance.server import PATIENCE, Process, plain_environment, process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Demo:
    """
    A running demo.

    Attributes:
        process: Its process.
        url: Of its page.
        database: The URL of its database.
        temporary: What it has for ``/tmp``.
    """

    process: Process
    url: str
    database: str
    temporary: Path

    @property
    def sockets(self) -> str:
        """Return the beginning of its WebSockets' URLs."""
        return self.url.replace("http:", "ws:") + "ws/"


@contextmanager
def demo(*arguments: str, **environ: str) -> Iterator[Demo]:
    """Run the demo for the length of a ``with`` block."""
    # Not below pytest's directory, which other users may not enter: as root the demo's PostgreSQL
    # is one.
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        directory = Path(name)
        temporary = directory / "tmp"
        temporary.mkdir()
        for path in (directory, temporary):
            path.chmod(0o711)
        environment = plain_environment(TMPDIR=str(temporary), **environ)
        command = ["-m", "pgobserve", "demo", "--port", "0", *arguments]
        with process("demo", command, directory, environment, cwd=directory) as started:
            yield _ready(started, temporary)


def _ready(started: Process, temporary: Path) -> Demo:
    until(lambda: "Ctrl-C" in started.output() or started.popen.poll() is not None)
    said = started.output()
    page = re.search(r"http://127\.0\.0\.1:\d+/", said)
    psql = re.search(r"psql (postgresql://\S+)", said)
    assert page, f"The demo did not start:\n{said}"
    assert psql, said
    return Demo(started, page[0], psql[1], temporary)


def until(condition: Callable[[], bool]) -> None:
    """Wait until something outside this process is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "It did not happen in time."
        time.sleep(0.02)
