"""The command ``demo``: starts PostgreSQL and a small project, and serves its page."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import shutil
import sys
import webbrowser
from typing import TYPE_CHECKING, Any

from psycopg.conninfo import make_conninfo

from pgobserve.demo import provision, serving
from pgobserve.demo.environment import named_server
from pgobserve.demo.postgres import THROW_AWAY, embedded
from pgobserve.demo.project import config
from pgobserve.demo.project.config import Config
from pgobserve.demo.serving import Stopping, stopping

if TYPE_CHECKING:
    from collections.abc import Mapping

TEMPLATE = """
  {bold}pgobserve demo{plain}   {url}

  {dim}Open the page, then change its tables from anywhere:{plain}

    {psql}

    UPDATE ship SET cargo = cargo + 25 WHERE name = 'Kittiwake';
    UPDATE line SET name = 'Gannet & Co' WHERE id = 1;
    DELETE FROM ship WHERE state = 'at sea';
    INSERT INTO ship (name) VALUES ('Marigold');

  {dim}The page has a box for SQL as well; only this machine can reach it.
  PostgreSQL is {server}.{plain}

  {dim}Stop with Ctrl-C.{plain}
"""

DESCRIPTION = (
    "Start PostgreSQL, make a small project's tables, and serve a page that shows them live."
)

#: With commit timestamps the page can show how long a change took.
OPTIONS = (*THROW_AWAY, "track_commit_timestamp=on")


def print_start(port: int, wanted: int) -> None:
    """Print that the demo starts, and the port if it is not the expected one."""
    if port != wanted:
        print(f"Port {wanted} is taken, so the page is on port {port}.", flush=True)
    print("Starting PostgreSQL and the page …", flush=True)


def print_ready(*, open_browser: bool) -> None:
    url = f"http://127.0.0.1:{config.current.port}/"
    print(banner(config.current, url, colour=sys.stdout.isatty()), flush=True)
    if open_browser:
        webbrowser.open(url)


def banner(of: Config, url: str, *, colour: bool) -> str:
    bold, dim, plain = ("\033[1m", "\033[2m", "\033[0m") if colour else ("", "", "")
    return TEMPLATE.format(bold=bold, dim=dim, plain=plain, url=url, psql=of.psql, server=of.server)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port",
        type=_port,
        help=f"port on {serving.HOST}; default {serving.DEFAULT_PORT}, or the next that is free",
    )
    parser.add_argument("--open", action="store_true", help="open the page in your browser")


def run(options: argparse.Namespace) -> int:
    """Serve the demo; return 0 if it was stopped, 1 if it could not be started."""
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
    listener = stack.enter_context(serving.claim(options.port))
    port = listener.getsockname()[1]
    print_start(port, serving.DEFAULT_PORT if options.port is None else port)
    admin = named_server()
    if admin is None:
        server = stack.enter_context(embedded(OPTIONS))
        made = provision.provision(server.parameters(), "harbour", drop=False)
        database, commit_times = stack.enter_context(made)
        psql = shutil.which("psql") or str(server.bin / "psql")
        words = "a server of its own, which goes when the demo ends"
    else:
        name = f"pgobserve_demo_{secrets.token_hex(3)}"
        database, commit_times = stack.enter_context(provision.provision(admin, name))
        psql = "psql"
        words = (
            f"your server at {database['host']}: the database {name} and its role go when the demo "
            "ends"
        )
    psql = psql_command(psql, database)
    made_of = {"database": database, "port": port, "psql": psql, "server": words}
    config.current = Config(**made_of, commit_times=commit_times)
    serving.prepare()
    serving.serve(listener, signals, ready=lambda: print_ready(open_browser=options.open))


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
