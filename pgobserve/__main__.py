"""``python -m pgobserve demo``; everything else is ``manage.py pgobserve``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pgobserve.demo import command

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command that needs no Django project.

    Returns:
        The exit code: 0 done or stopped, 1 it could not be done, 2 wrong usage.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pgobserve",
        description="A change feed for Django on PostgreSQL. In a project, use manage.py pgobserve.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo", help="serve a page that shows a table live", description=command.__doc__
    )
    command.add_arguments(demo)
    demo.set_defaults(run=command.run)
    options = parser.parse_args(argv)
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
