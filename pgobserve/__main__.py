"""``python -m pgobserve demo``; everything else is ``manage.py pgobserve``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command that needs no Django project; return 0 for success, 1 for failure, 2 for wrong usage."""
    try:
        from pgobserve.demo.command import DESCRIPTION, add_arguments, run
    except ImportError as error:  # for example, psycopg finds no libpq
        sys.stderr.write(
            f"Something is missing ({error}). Install it with: pip install 'pgobserve[demo]'\n"
        )
        return 1
    parser = argparse.ArgumentParser(
        prog="python -m pgobserve",
        description="A change feed for Django on PostgreSQL. In a project, use manage.py pgobserve.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo", help="serve a page that shows a table live", description=DESCRIPTION
    )
    add_arguments(demo)
    demo.set_defaults(run=run)
    options = parser.parse_args(argv)
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
