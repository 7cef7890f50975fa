"""
Give the test run a PostgreSQL before Django reads its settings, and decide on the workers.

Loaded by ``-p tests.plugin``; a server named by the environment is used as it is, else the wheel's
is started and ended with the run. The server starts at the first need, so that unit tests alone
start none. ``PGOBSERVE_TEST_PG_BIN`` names the programs of another PostgreSQL, e.g.
``/usr/lib/postgresql/15/bin``.

Each worker of ``-n`` has a server of its own: roles, transaction ids, the notification queue and
``pg_stat_activity`` belong to the server, not to the database.
"""

from __future__ import annotations

import contextlib
import json
import os
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from pgobserve.demo.environment import named_server
from pgobserve.demo.postgres import THROW_AWAY, Server, embedded

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Prepared transactions are off unless a server allows some.
OPTIONS = (*THROW_AWAY, "max_prepared_transactions=4")

#: The tests wait a third of their time. Each worker costs twenty seconds before its first test.
WORKERS_PER_CPU = 1.5
MOST_WORKERS = 8

_WORKERS = pytest.StashKey[int]()
_stack = contextlib.ExitStack()


# First, because pytest-django's reads the settings.
@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> None:
    """Start the server unless the run is of unit tests only, or its workers start theirs."""
    early_config.stash[_WORKERS] = workers(args)
    if _only_unit(args) or _is_given() or _only_directs(early_config):
        return
    programs = os.environ.get("PGOBSERVE_TEST_PG_BIN")
    server = _stack.enter_context(
        embedded(OPTIONS, bin_directory=Path(programs) if programs else None)
    )
    _make_logins_cheap(server)
    os.environ["PGOBSERVE_TEST_SERVER"] = json.dumps(server.parameters())


# First, because xdist has one that counts the cores.
@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Answer ``-n auto``."""
    return config.stash[_WORKERS]


def workers(args: Sequence[str]) -> int:
    """
    Return how many workers a run deserves; 0 is a run without any.

    Args:
        args: The arguments of the command line.
    """
    # A worker takes seconds to start: Django, a server, tables. A named server can't be shared.
    narrow = any(arg.startswith(("-k", "--lf", "--last-failed", "--pdb")) for arg in args)
    paths = [Path(arg) for arg in args if arg.partition("/")[0] == "tests"]
    small = not all(path.is_dir() for path in paths) or _only_unit(args)
    if narrow or small or _is_given():
        return 0
    return min(ceil(WORKERS_PER_CPU * len(os.sched_getaffinity(0))), MOST_WORKERS)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what this run started."""
    _stack.close()


def _only_unit(args: Sequence[str]) -> bool:
    paths = [arg for arg in args if not arg.startswith("-") and "tests" in arg]
    return bool(paths) and all("tests/unit" in path for path in paths)


def _is_given() -> bool:
    return "PGOBSERVE_TEST_SERVER" in os.environ or named_server() is not None


def _only_directs(config: pytest.Config) -> bool:
    """Tell whether this process runs no tests but has workers that do."""
    wanted = getattr(config.known_args_namespace, "numprocesses", None)
    if "PYTEST_XDIST_WORKER" in os.environ or not wanted:
        return False
    return not isinstance(wanted, str) or config.stash[_WORKERS] > 0


def _make_logins_cheap(server: Server) -> None:
    """Store the random password so that a login costs no thousands of hashes on either side."""
    with psycopg.connect(**server.parameters(), autocommit=True) as connection:
        if connection.info.server_version < 160000:
            return
        connection.execute("SET scram_iterations = 1")
        password = sql.Literal(server.password)
        connection.execute(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(password))
