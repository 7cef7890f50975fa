"""The command ``demo``: starts PostgreSQL and a small project, and serves its page."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import shutil
import sys
from typing import TYPE_CHECKING, Any

from psycopg.conninfo import make_conninfo

from pgobserve.demo import address, banner, provision, serving
from pgobserve.demo.environment import named_server
from pgobserve.demo.postgres import THROW_AWAY, embedded
from pgobserve.demo.project.config import Config
from pgobserve.demo.stopping import Stopping, stopping

if TYPE_CHECKING:
    from collections.abc import Mapping

DESCRIPTION = (
    "Start PostgreSQL, make a small project's tables, and serve a page that shows them live."
)

#: With commit timestamps the page can show how long a change took.
OPTIONS = (*THROW_AWAY, "track_commit_timestamp=on")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``demo``."""
    parser.add_argument(
        "--port",
        type=_port,
        help=f"port on {address.HOST}; default {address.DEFAULT_PORT}, or the next that is free",
    )
    parser.add_argument("--open", action="store_true", help="open the page in your browser")


def run(options: argparse.Namespace) -> int:
    """
    Serve the demo until it is stopped.

    Returns:
        0 if it was stopped, 1 if it could not be started.
    """
    try:
        serving.check()
        with stopping() as signals, contextlib.ExitStack() as stack:
            _serve(options, signals, stack)
    except (RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\nStopped; nothing is left running.")
    return 0


def _serve(options: argparse.Namespace, signals: Stopping, stack: contextlib.ExitStack) -> None:
    listener = stack.enter_context(address.claim(options.port))
    port = listener.getsockname()[1]
    banner.starting(port, address.DEFAULT_PORT if options.port is None else port)
    admin = named_server()
    if admin is None:
        server = stack.enter_context(embedded(OPTIONS))
        database = stack.enter_context(
            provision.provision(server.parameters(), "harbour", drop=False)
        )
        psql = shutil.which("psql") or str(server.bin / "psql")
        words = "a server of its own, which goes when the demo ends"
    else:
        name = f"pgobserve_demo_{secrets.token_hex(3)}"
        database = stack.enter_context(provision.provision(admin, name))
        psql = "psql"
        words = (
            f"your server at {database.parameters['host']}: the database {name} and its role go "
            "when the demo ends"
        )
    config = Config(
        database=dict(database.parameters),
        port=port,
        psql=psql_command(psql, database.parameters),
        server=words,
        commit_times=database.commit_times,
    )
    config.publish()
    serving.prepare()
    serving.serve(listener, signals, ready=lambda: banner.ready(config, open_browser=options.open))


def psql_command(program: str, parameters: Mapping[str, Any]) -> str:
    """Return the command to paste into a terminal; its password is valid for the demo only."""
    program = "psql" if program == shutil.which("psql") else program
    names = ("host", "port", "user", "password", "dbname")
    known = {name: parameters[name] for name in names}
    if str(known["host"]).startswith("/"):  # a URL can't contain a directory of sockets
        return f'{program} "{make_conninfo(**known)}"'
    url = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**known)
    return f"{program} {url}"


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port. Give a number up to 65535.")
    return int(text)
