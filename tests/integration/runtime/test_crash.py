"""A server that crashed gives transaction ids again; snapshots from before are another run's."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgobserve.demo.postgres import embedded
from pgobserve.hub.snapshot import Snapshot
from pgobserve.sql.keyed_query import SNAPSHOT


def _reconnected(parameters: dict[str, object]) -> psycopg.Connection[Any]:
    deadline = time.monotonic() + 90
    while True:
        try:
            return psycopg.connect(**parameters, autocommit=True)  # type: ignore[arg-type]
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _snapshot(connection: psycopg.Connection[Any]) -> Snapshot:
    row = connection.execute(f"SELECT {SNAPSHOT}").fetchone()  # type: ignore[arg-type]
    assert row is not None
    return Snapshot.parse(row[0])


def test_killed_backend() -> None:
    """When a process of the server is killed, ids are given again, and the run is another."""
    programs = os.environ.get("PGOBSERVE_TEST_PG_BIN")
    with embedded((), bin_directory=Path(programs) if programs else None) as server:
        # Every 15 s the server records its next id, and then does not give the ids before it again.
        for _ in range(3):
            before, after = _killed(server.parameters())
            if after.xmax < before.xmax:
                return
    pytest.fail("no id was given again after three crashes")


def _killed(parameters: dict[str, Any]) -> tuple[Snapshot, Snapshot]:
    """Kill a process of the server; return snapshots of the run before and of another run after."""
    connection = _reconnected(parameters)
    if connection.info.server_version < 150000:
        connection.close()
        pytest.skip("PostgreSQL 14 shows no sign of having come back from a crash")
    connection.execute("CHECKPOINT")
    for _ in range(5):
        with connection.transaction(force_rollback=True):
            connection.execute("SELECT pg_current_xact_id()")
    before = _snapshot(connection)
    assert _snapshot(connection) == before
    os.kill(connection.info.backend_pid, signal.SIGKILL)
    connection.close()
    # Until the postmaster has noticed, it may still let somebody in.
    deadline = time.monotonic() + 90
    connection = _reconnected(parameters)
    while (after := _try_snapshot(connection)) is None or after.run == before.run:
        assert time.monotonic() < deadline, "the run is still the same"
        connection = _reconnected(parameters)
    return before, after


def _try_snapshot(connection: psycopg.Connection[Any]) -> Snapshot | None:
    try:
        return _snapshot(connection)
    except psycopg.OperationalError:
        return None
    finally:
        connection.close()
