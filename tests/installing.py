"""
Install triggers before a test in one statement.

What ``pgobserve install`` does is tested in ``tests/integration/triggers``. Elsewhere triggers are
only needed, for more than a thousand tests, and `install` makes up to 150 statements each time. So
what it executed on an empty schema is recorded at the first need, and repeated later.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from pgobserve import conf

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_READS = re.compile(r"\s*(WITH\b|SELECT\b(?!.*(set_config|advisory)))", re.DOTALL)

_scripts: dict[Hashable, str] = {}


def install(*labels: str) -> None:
    """Install the triggers of models as ``pgobserve install`` does, in place of all others."""
    key = ("command", labels, str(conf.get()))
    install_by(key, lambda: call_command("pgobserve", "install", *labels, verbosity=0))


def install_by(key: Hashable, function: Callable[[], object]) -> None:
    """
    Install triggers by a function, in place of all others.

    Args:
        key: Equal for functions that execute the same on an empty schema.
        function: Uses Django's default connection.
    """
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS pgobserve CASCADE")
    if key in _scripts:
        with connection.cursor() as cursor:
            cursor.execute(_scripts[key])
        return
    with CaptureQueriesContext(connection) as captured:
        function()
    written = [each["sql"] for each in captured.captured_queries if not _READS.match(each["sql"])]
    _scripts[key] = ";\n".join(written)
