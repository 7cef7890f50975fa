"""The demo's page in this process: its port, the signals that end it, its Django project, and Daphne."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from importlib.util import find_spec
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

HOST = "127.0.0.1"
DEFAULT_PORT = 8000

#: The number of ports to try.
TRIES = 10

#: Windows has no SIGHUP.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


def claim(port: int | None) -> socket.socket:
    """
    Listen on a port of loopback: any for 0; for None the default, or one of the next if it is taken.

    Raises ``RuntimeError`` with the remedy if the port is taken or unusable.
    """
    if port is not None:
        return _listen(port)
    for candidate in range(DEFAULT_PORT, DEFAULT_PORT + TRIES):
        try:
            return _listen(candidate)
        except RuntimeError:
            continue
    raise RuntimeError(
        f"The ports {DEFAULT_PORT} to {DEFAULT_PORT + TRIES - 1} of {HOST} are all taken. "
        "Choose another with --port."
    )


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Otherwise a demo that had visitors blocks the port for a minute.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(100)
    except OSError as error:
        listener.close()
        taken = error.errno == errno.EADDRINUSE
        reason = "is taken by another program" if taken else f"can't be used ({error.strerror})"
        raise RuntimeError(
            f"Port {port} of {HOST} {reason}. Choose another: python -m pgobserve demo --port 8010"
        ) from error
    return listener


class Stopped(BaseException):
    """A signal ends the demo; this is no error."""


class Stopping:
    """The present effect of a signal: it raises `Stopped`, or calls the function given to `instead`."""

    def __init__(self) -> None:
        self.requested = False
        self._call: Callable[[], object] | None = None

    @contextlib.contextmanager
    def instead(self, call: Callable[[], object]) -> Iterator[None]:
        """Call a function for a signal during the block."""
        self._call = call
        try:
            yield
        finally:
            self._call = None

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Handle the first signal; later ones must not interrupt the clean-up."""
        if self.requested:
            return
        self.requested = True
        if self._call is None:
            raise Stopped
        self._call()


@contextlib.contextmanager
def stopping() -> Iterator[Stopping]:
    """Handle signals during the block, and suppress `Stopped`."""
    state = Stopping()
    before = {}
    for number in SIGNALS:
        # nohup ignores a closed terminal, and so must the demo.
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, state.on_signal)
    try:
        with contextlib.suppress(Stopped):
            yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check() -> None:
    """Raise ``RuntimeError`` with the command to install the web server, if it is missing."""
    if find_spec("daphne") is None:
        raise RuntimeError(
            "No server for the demo's page: the package daphne is not installed. "
            "Install it with: pip install 'pgobserve[demo]'"
        )


def prepare() -> None:
    """Set up Django, create and fill the tables, and install the triggers."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "pgobserve.demo.project.settings"
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connections

    from pgobserve.demo.project.fleet import settle

    call_command("migrate", run_syncdb=True, verbosity=0, interactive=False, skip_checks=True)
    settle()
    output = StringIO()
    call_command("pgobserve", "install", stdout=output, stderr=output)
    connections.close_all()


def serve(listener: socket.socket, signals: Stopping, ready: Callable[[], None]) -> None:
    """
    Run Daphne until a signal arrives; call ``ready`` when the page can be opened.

    Raises ``RuntimeError`` if the server ends without a signal.
    """
    from daphne.server import Server
    from twisted.internet import reactor

    from pgobserve.demo.project.asgi import application

    server = Server(
        application,
        endpoints=[f"fd:fileno={listener.detach()}"],  # Twisted closes it
        signal_handlers=False,  # ours handle SIGHUP, too
        ready_callable=ready,
        server_name="pgobserve",
        application_close_timeout=2,
    )

    def stop() -> None:
        reactor.callFromThread(server.stop)

    with signals.instead(stop):
        server.run()
    if not signals.requested:
        raise RuntimeError(
            "The web server ended by itself. An earlier message may contain the reason."
        )
