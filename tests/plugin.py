"""
Give the test run a PostgreSQL before Django reads its settings.

Loaded by ``-p tests.plugin``; a server named by the environment is used as it is, else the wheel's
is started and ended with the run. The server starts at the first need, so that unit tests alone
start none. ``PGOBSERVE_TEST_PG_BIN`` names the programs of another PostgreSQL, e.g.
``/usr/lib/postgresql/15/bin``.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from pgobserve.demo.environment import named_server
from pgobserve.demo.postgres import THROW_AWAY, embedded

#: Prepared transactions are off unless a server allows some.
OPTIONS = (*THROW_AWAY, "max_prepared_transactions=4")

_stack = contextlib.ExitStack()


# First, because pytest-django's reads the settings.
@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> None:
    """Start the server unless the run is of unit tests only."""
    paths = [arg for arg in args if not arg.startswith("-") and "tests" in arg]
    only_unit = bool(paths) and all("tests/unit" in path for path in paths)
    if only_unit or "PGOBSERVE_TEST_SERVER" in os.environ or named_server() is not None:
        return
    programs = os.environ.get("PGOBSERVE_TEST_PG_BIN")
    server = _stack.enter_context(
        embedded(OPTIONS, bin_directory=Path(programs) if programs else None)
    )
    os.environ["PGOBSERVE_TEST_SERVER"] = json.dumps(server.parameters())


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what this run started."""
    _stack.close()
