"""``manage.py pgobserve``: parse the arguments; the work is done in ``pgobserve.cli``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS

from pgobserve.cli import install, status, uninstall
from pgobserve.cli.console import EXIT_FAILED, Console
from pgobserve.errors import PgObserveError
from pgobserve.triggers.installer import LOCK_TIMEOUT

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Mapping

RUN: Final[Mapping[str, Callable[..., None]]] = {
    "install": install.run,
    "uninstall": uninstall.run,
    "status": status.run,
}

#: Arguments that Django's own base class defines.
DJANGOS = (
    "settings",
    "pythonpath",
    "traceback",
    "verbosity",
    "no_color",
    "force_color",
    "skip_checks",
    "stdout",
    "stderr",
)


class Command(BaseCommand):
    """The command; each sub-command is a module of ``pgobserve.cli``."""

    help = "Install, inspect and remove the triggers that tell about changes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Define the sub-commands."""
        commands = parser.add_subparsers(dest="subcommand", required=True, metavar="sub-command")
        put = commands.add_parser("install", help="put the triggers on the tables")
        _common(put, "default: what the consumers and PGOBSERVE['MODELS'] name")
        _lock_timeout(put)
        put.add_argument(
            "--always",
            action=argparse.BooleanOptionalAction,
            help="fire under session_replication_role = replica too (default: as it is now)",
        )
        remove = commands.add_parser("uninstall", help="remove the triggers")
        _common(remove, "default: all that have triggers of this project")
        _lock_timeout(remove)
        remove.add_argument(
            "--orphans", action="store_true", help="only tables that belong to no model"
        )
        tell = commands.add_parser("status", help="tell how the triggers stand")
        _common(tell, "default: what is observed or has triggers")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the sub-command."""
        console = Console(self.stdout, self.stderr, self.style)
        run = RUN[options.pop("subcommand")]
        given = {name: value for name, value in options.items() if name not in DJANGOS}
        try:
            run(console, **given)
        except PgObserveError as error:
            raise CommandError(str(error), returncode=EXIT_FAILED) from error


def _common(parser: ArgumentParser, default: str) -> None:
    parser.add_argument("labels", nargs="*", metavar="label", help=f"app_label.Model ({default})")
    parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="alias of the database")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON")


def _lock_timeout(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--lock-timeout",
        type=float,
        default=LOCK_TIMEOUT,
        metavar="SECONDS",
        help="how long to wait for a lock (default: %(default)g)",
    )
