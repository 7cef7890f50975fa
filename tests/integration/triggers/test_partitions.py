"""Partitioned tables: the root and every partition, on every level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test import override_settings

from pgobserve.errors import TriggerError
from pgobserve.triggers import registry
from pgobserve.triggers.server import catalog, drift
from pgobserve.triggers.server.drift import State
from pgobserve.wire import ALONE
from tests.integration.triggers.conftest import by_each_transport
from tests.project.shapes import Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.triggers.conftest import Ear

LABEL = "project.measurement"


@pytest.fixture(autouse=True)
def partitioned(run: Callable[..., Any], install: Callable[..., Any]) -> Iterator[None]:
    """A table with two partitions, one of them partitioned again, with other column orders."""
    run(
        "CREATE TABLE project_measurement (id bigint PRIMARY KEY, name text) PARTITION BY RANGE (id)"
    )
    run("CREATE TABLE part_low PARTITION OF project_measurement FOR VALUES FROM (0) TO (100)")
    run(
        "CREATE TABLE part_high PARTITION OF project_measurement FOR VALUES FROM (100) TO (300) "
        "PARTITION BY RANGE (id)"
    )
    run('CREATE TABLE "part Deep" (name text, gone int, id bigint NOT NULL)')
    run('ALTER TABLE "part Deep" DROP gone')
    run('ALTER TABLE part_high ATTACH PARTITION "part Deep" FOR VALUES FROM (100) TO (200)')
    install(Measurement)
    yield
    run("DROP TABLE project_measurement")


def _state() -> tuple[State, str]:
    (registration,) = registry.build([Measurement])
    tables = catalog.relations(connection, [registration.table])
    found = catalog.triggers(connection, ALONE)
    status = drift.compare(registration, tables[registration.table], found)
    return status.state, status.detail


@by_each_transport
def test_writes_to_the_root(ear: Ear, run: Callable[..., Any]) -> None:
    """A statement on the root sends one payload, with the rows of all partitions."""
    run("INSERT INTO project_measurement VALUES (1, ''), (150, '')")
    run("UPDATE project_measurement SET name = 'x'")
    run("DELETE FROM project_measurement")
    run("TRUNCATE project_measurement")

    assert ear.changes() == [
        (LABEL, "I", [1, 150]),
        (LABEL, "U", [1, 150]),
        (LABEL, "D", [1, 150]),
        (LABEL, "T", None),
    ]


@by_each_transport
@pytest.mark.parametrize("part", ['"part Deep"', "part_high"])
def test_writes_to_a_partition(ear: Ear, run: Callable[..., Any], part: str) -> None:
    """A statement on a partition of any level has the root's label."""
    run(f"INSERT INTO {part} (id, name) VALUES (150, '')")
    run(f"UPDATE {part} SET name = ''")
    run(f"UPDATE {part} SET name = 'x'")
    run(f"DELETE FROM {part}")
    run(f"TRUNCATE {part}")

    assert ear.changes() == [
        (LABEL, "I", [150]),
        (LABEL, "U", [150]),
        (LABEL, "D", [150]),
        (LABEL, "T", None),
    ]


@by_each_transport
def test_row_movement(ear: Ear, run: Callable[..., Any]) -> None:
    """A row that moves to another partition is one UPDATE with both keys."""
    run("INSERT INTO project_measurement VALUES (1, '')")
    ear.texts()

    run("UPDATE project_measurement SET id = 150")

    assert ear.changes() == [(LABEL, "U", [1, 150])]


def test_partition_added_later(
    ear: Ear, run: Callable[..., Any], install: Callable[..., Any]
) -> None:
    """A partition made after the installation is reported, and installing again mends it."""
    assert _state() == (State.OK, "")
    run("CREATE TABLE part_late PARTITION OF project_measurement FOR VALUES FROM (300) TO (400)")
    names = "pgobserve_d, pgobserve_i, pgobserve_t, pgobserve_u"
    assert _state() == (State.LEAF_MISSING, f"public.part_late lacks {names}")
    run("INSERT INTO project_measurement VALUES (300, '')")
    run("INSERT INTO part_late VALUES (301, '')")
    assert ear.changes() == [(LABEL, "I", [300])]

    install(Measurement)

    assert _state() == (State.OK, "")
    run("INSERT INTO part_late VALUES (302, '')")
    assert ear.changes() == [(LABEL, "I", [302])]


@by_each_transport
def test_detached_partition(
    ear: Ear, run: Callable[..., Any], command: Callable[..., tuple[int, str, str]]
) -> None:
    """A partition that is detached is an orphan; removing its triggers leaves the root's."""
    run("ALTER TABLE project_measurement DETACH PARTITION part_low")
    try:
        assert "public.part_low has our triggers and no model" in _told(command)
        code, out, _ = command("uninstall", "--orphans")
        assert (code, out) == (0, "project.measurement: removed on public.part_low\n")
        run("INSERT INTO part_low VALUES (1, '')")
    finally:
        run("DROP TABLE part_low")
    run("INSERT INTO project_measurement VALUES (150, '')")

    assert ear.changes() == [(LABEL, "I", [150])]


def _told(command: Callable[..., tuple[int, str, str]]) -> str:
    """Return what ``status`` says where another table is observed."""
    with override_settings(PGOBSERVE={"MODELS": ["auth.Group"]}):
        return command("status")[1]


@by_each_transport
def test_always_reaches_the_partitions(
    ear: Ear, run: Callable[..., Any], install: Callable[..., Any]
) -> None:
    """``always`` holds for the partitions, too."""
    install(Measurement, always=True)
    run("SET session_replication_role = replica")
    try:
        run("INSERT INTO part_low VALUES (1, '')")
        run("INSERT INTO project_measurement VALUES (2, '')")
    finally:
        run("RESET session_replication_role")

    assert ear.changes() == [(LABEL, "I", [1]), (LABEL, "I", [2])]


def test_foreign_partition(run: Callable[..., Any], install: Callable[..., Any]) -> None:
    """A partition that is a foreign table is refused before it makes writes fail, and reported."""
    run("CREATE FOREIGN DATA WRAPPER nowhere")
    run("CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere")
    # A foreign table can't enforce a key: PostgreSQL takes it as a partition only without.
    run("ALTER TABLE project_measurement DROP CONSTRAINT project_measurement_pkey")
    run(
        "CREATE FOREIGN TABLE part_far PARTITION OF project_measurement "
        "FOR VALUES FROM (900) TO (999) SERVER nowhere"
    )
    try:
        detail = "public.part_far is a foreign table, which can't have triggers: detach it"
        assert _state() == (State.LEAF_MISSING, detail)
        with pytest.raises(TriggerError, match=r"foreign tables \(public\.part_far\).*Detach them"):
            install(Measurement)
    finally:
        run("DROP FOREIGN DATA WRAPPER nowhere CASCADE")
