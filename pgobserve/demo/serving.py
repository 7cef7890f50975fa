"""The demo's Django project in this process: migrations, rows, triggers, and Daphne."""

from __future__ import annotations

import os
from importlib.util import find_spec
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from pgobserve.demo.stopping import Stopping


def check() -> None:
    """
    Check that the web server is installed.

    Raises:
        RuntimeError: It is not; the message contains the command to install it.
    """
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

    from pgobserve.demo.project.fleet import settle

    call_command("migrate", verbosity=0, interactive=False, skip_checks=True)
    settle()
    output = StringIO()
    call_command("pgobserve", "install", stdout=output, stderr=output)
    _close_connections()


def serve(listener: socket.socket, signals: Stopping, ready: Callable[[], None]) -> None:
    """
    Run Daphne on a listening socket, until a signal arrives.

    Args:
        listener: The socket.
        signals: Signals, which stop the server in order instead of raising.
        ready: Called when the page can be opened.

    Raises:
        RuntimeError: The server ended without a signal.
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


def _close_connections() -> None:
    from django.db import connections

    connections.close_all()
