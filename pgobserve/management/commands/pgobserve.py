"""``manage.py pgobserve``: parse the arguments. ``pgobserve.cli`` does the work."""

from __future__ import annotations

import argparse
import datetime
from typing import TYPE_CHECKING, Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS
from django.db import Error as DatabaseError
from django.utils import timezone

from pgobserve.cli import deps, installation, status, tail
from pgobserve.cli.console import EXIT_FAILED, Console
from pgobserve.cli.doctor import examination
from pgobserve.cli.why import answer
from pgobserve.errors import PgObserveError
from pgobserve.triggers.installer import LOCK_TIMEOUT
from pgobserve.triggers.refusals import refusal

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Mapping

    Run = Callable[..., None]
    Define = Callable[[ArgumentParser], None]

#: PostgreSQL keeps a timeout in milliseconds as a 32-bit number.
MAX_SECONDS: Final = 2_000_000

#: Arguments of Django's own base class.
DJANGOS: Final = (
    *("settings", "pythonpath", "traceback", "verbosity", "no_color", "force_color"),
    *("skip_checks", "stdout", "stderr"),
)


class Command(BaseCommand):
    """The command; each sub-command is a function of a module in ``pgobserve.cli``."""

    help = "Install, inspect and remove the triggers that publish changes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Define the sub-commands."""
        commands = parser.add_subparsers(dest="subcommand", required=True, metavar="sub-command")
        for name, (_, define, text) in SUBCOMMANDS.items():
            define(commands.add_parser(name, help=text))

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the sub-command."""
        console = Console(self.stdout, self.stderr, self.style)
        run, _, _ = SUBCOMMANDS[options.pop("subcommand")]
        given = {name: value for name, value in options.items() if name not in DJANGOS}
        try:
            run(console, **given)
        except PgObserveError as error:
            raise CommandError(str(error), returncode=EXIT_FAILED) from error
        except DatabaseError as error:
            raise CommandError(refusal(error), returncode=EXIT_FAILED) from error
        finally:
            # In a file or pipe too, the output comes before the error.
            self.stdout.flush()


OBSERVED = "default: models of the consumers and of PGOBSERVE['MODELS']"


def _install(parser: ArgumentParser) -> None:
    _common(parser, OBSERVED, _json, _lock_timeout, _always)


def _uninstall(parser: ArgumentParser) -> None:
    default = "default: all tables of this project that have triggers"
    _common(parser, default, _json, _lock_timeout)
    parser.add_argument("--orphans", action="store_true", help="only tables without a model")


def _status(parser: ArgumentParser) -> None:
    _common(parser, "default: all that are observed or have triggers", _json)


def _sql(parser: ArgumentParser) -> None:
    _common(parser, OBSERVED, _lock_timeout, _always)
    parser.add_argument(
        "--all",
        action="store_true",
        dest="everything",
        help="also for tables that have their triggers",
    )
    parser.add_argument(
        "--reverse", action="store_true", help="print the statements that remove the triggers"
    )


def _migration(parser: ArgumentParser) -> None:
    parser.add_argument("app", help="label of the app that gets the migration")
    _common(parser, OBSERVED, _always)
    parser.add_argument("--name", default="pgobserve", help="its name (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print it, write nothing")


def _deps(parser: ArgumentParser) -> None:
    parser.add_argument(
        "consumer",
        nargs="?",
        help="its dotted path or its name (default: all that ASGI_APPLICATION imports)",
    )
    _database(parser)
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
    shape.add_argument("--dot", action="store_true", dest="as_dot", help="print a Graphviz graph")


def _tail(parser: ArgumentParser) -> None:
    _common(parser, "default: all")
    parser.add_argument(
        "--since",
        type=_moment,
        metavar="WHEN",
        help="print changes in the outbox since then: 90s, 10m, 2h, 1d, or a time in ISO 8601",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="continue with new changes (default: only without --since)",
    )
    parser.add_argument("--rows", action="store_true", help="print column values too")
    parser.add_argument(
        "--json", action="store_true", dest="as_json", help="print JSON, one object a line"
    )


def _why(parser: ArgumentParser) -> None:
    parser.add_argument("label", help="app_label.Model")
    parser.add_argument(
        "pk", nargs="?", help="key of a row; a JSON array if it has several columns"
    )
    _database_and_json(parser)
    parser.add_argument(
        "--probe",
        action="store_true",
        dest="sends",
        help="send the trigger's notification, to check that it arrives; changes no row",
    )


def _moment(text: str) -> datetime.datetime:
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:])
    now = timezone.now()
    try:
        if unit is not None:
            return now - datetime.timedelta(seconds=float(text[:-1]) * unit)
        moment = datetime.datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither an age, like 10m, nor a time, like 2026-01-31T12:00"
        ) from error
    return timezone.make_aware(moment) if timezone.is_naive(moment) else moment


def _common(parser: ArgumentParser, default: str, *others: Define) -> None:
    parser.add_argument("labels", nargs="*", metavar="label", help=f"app_label.Model ({default})")
    for define in (_database, *others):
        define(parser)


def _database(parser: ArgumentParser) -> None:
    parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="alias of the database")


def _json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON")


def _always(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--always",
        action=argparse.BooleanOptionalAction,
        help="fire under session_replication_role = replica too (default: as installed)",
    )


def _lock_timeout(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--lock-timeout",
        type=_seconds,
        default=LOCK_TIMEOUT,
        metavar="SECONDS",
        help="time to wait for a lock (default: %(default)g)",
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"must be more than 0 and less than {MAX_SECONDS:,}")
    return seconds


def _database_and_json(parser: ArgumentParser) -> None:
    _database(parser)
    _json(parser)


#: By name: the function that runs a sub-command, the one that defines its arguments, its help.
SUBCOMMANDS: Final[Mapping[str, tuple[Run, Define, str]]] = {
    "install": (installation.install, _install, "install the triggers"),
    "uninstall": (installation.uninstall, _uninstall, "remove the triggers"),
    "status": (status.run, _status, "print the state of the triggers"),
    "sql": (installation.print_sql, _sql, "print the statements of install"),
    "migration": (installation.write_migration, _migration, "write a Django migration"),
    "deps": (deps.run, _deps, "print which tables consumers' rows depend on"),
    "prune": (status.prune, _database_and_json, "remove old rows from the outbox"),
    "tail": (tail.run, _tail, "print changes as they happen"),
    "why": (answer.run, _why, "explain which subscribers a row's changes reach"),
    "doctor": (examination.run, _database_and_json, "check for common problems"),
}
