"""A write never fails because of us: at worst a marker says to read the table again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.core import checks

from pgobserve.errors import TriggerError
from pgobserve.triggers.installer import InstallAction
from pgobserve.triggers.server.drift import State
from tests.project.models import Item
from tests.project.shapes import Raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.triggers.conftest import Ear

RAW = "project.raw"


@pytest.fixture
def raw(run: Callable[..., Any], install: Callable[..., Any]) -> Iterator[None]:
    """A table with one row."""
    run("CREATE TABLE project_raw (id bigint PRIMARY KEY, a int)")
    install(Raw)
    run("INSERT INTO project_raw VALUES (1, 1)")
    yield
    run("DROP TABLE IF EXISTS project_raw, project_renamed")


@pytest.mark.usefixtures("raw")
@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE project_raw RENAME id TO code",
        "ALTER TABLE project_raw DROP id",
    ],
)
def test_key_column_is_gone(
    ear: Ear,
    writer: psycopg.Connection[Any],
    run: Callable[..., Any],
    install: Callable[..., Any],
    command: Callable[..., tuple[int, str, str]],
    settings: Any,
    change: str,
) -> None:
    """Without its key column every write succeeds, warns and sends a marker."""
    warnings: list[str] = []
    writer.add_notice_handler(
        lambda d: warnings.append(f"{d.severity} {d.message_primary} {d.message_hint}")
    )
    run(change)

    writer.execute("UPDATE project_raw SET a = 2")
    writer.execute("DELETE FROM project_raw")
    writer.execute("INSERT INTO project_raw (a) VALUES (3)") if "DROP" in change else None

    operations = ["U", "D", "I"] if "DROP" in change else ["U", "D"]
    assert ear.changes() == [(RAW, operation, None) for operation in operations]
    assert len(warnings) == len(operations)
    assert (
        "WARNING pgobserve: trigger pgobserve_u does not fit table public.project_raw"
        in warnings[0]
    )
    assert warnings[0].endswith("Run manage.py pgobserve install project.Raw")
    settings.PGOBSERVE = {"MODELS": ["project.Raw"]}
    code, out, _ = command("status")
    assert code == 1
    assert "public.project_raw has no column id: run manage.py migrate first" in out
    (message,) = checks.run_checks(tags=[checks.Tags.database], databases=["default"])
    assert message.id == "pgobserve.W012"
    assert "has no column id" in message.msg
    assert message.hint == "Run manage.py pgobserve install project.Raw."
    with pytest.raises(TriggerError, match=r"has no column id. Model and table differ"):
        install(Raw)


@pytest.mark.usefixtures("raw")
def test_key_column_renamed_with_its_model(
    ear: Ear, run: Callable[..., Any], install: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the model knows the new name, too, installing again mends it."""
    run("ALTER TABLE project_raw RENAME id TO code")
    monkeypatch.setattr(Raw._meta.pk, "column", "code")
    (outcome,) = install(Raw)
    run("UPDATE project_raw SET a = 2")

    assert (outcome.action, outcome.was) == (InstallAction.UPDATED, State.OUTDATED)
    assert ear.changes() == [(RAW, "U", [1])]


@pytest.mark.usefixtures("raw")
def test_watched_column_is_gone(
    ear: Ear, run: Callable[..., Any], install: Callable[..., Any]
) -> None:
    """The same holds for a column that ``columns`` names."""
    install(Item, columns=["rank"])
    run("INSERT INTO project_item (id, name, rank) VALUES (1, '', 0)")
    run("ALTER TABLE project_item RENAME rank TO grade")
    try:
        run("UPDATE project_item SET grade = 1")
    finally:
        run("ALTER TABLE project_item RENAME grade TO rank")
    run("UPDATE project_item SET rank = 2")

    assert ear.changes() == [
        ("project.item", "I", [1]),
        ("project.item", "U", None),
        ("project.item", "U", [1]),
    ]


@pytest.mark.usefixtures("raw")
def test_key_of_another_type(ear: Ear, run: Callable[..., Any]) -> None:
    """A key column that changes its type under the triggers is sent with the new type."""
    run("UPDATE project_raw SET a = 2")
    run("ALTER TABLE project_raw ALTER id TYPE text")
    run("UPDATE project_raw SET a = 3")

    assert ear.changes() == [(RAW, "U", [1]), (RAW, "U", ["1"])]


@pytest.mark.usefixtures("raw")
def test_key_without_an_equality_that_we_know(ear: Ear, run: Callable[..., Any]) -> None:
    """A key of a type that PostgreSQL's own operators can't compare makes markers."""
    run("ALTER TABLE project_raw DROP id")
    run("ALTER TABLE project_raw ADD id point DEFAULT '(1,2)'")
    run("UPDATE project_raw SET a = 3")
    run("DELETE FROM project_raw")

    assert ear.changes() == [(RAW, "U", None), (RAW, "D", ["(1,2)"])]


@pytest.mark.usefixtures("raw")
def test_renamed_table(
    ear: Ear,
    run: Callable[..., Any],
    command: Callable[..., tuple[int, str, str]],
    settings: Any,
) -> None:
    """A table renamed under its triggers still notifies; ``status`` reports that its model lost it."""
    run("ALTER TABLE project_raw RENAME TO project_renamed")
    run("UPDATE project_renamed SET a = 2")

    assert ear.changes() == [(RAW, "U", [1])]
    settings.PGOBSERVE = {"MODELS": ["project.Raw"]}
    code, out, _ = command("status")
    assert code == 1
    assert 'there is no table "project_raw": run manage.py migrate first' in out
    assert "public.project_renamed has our triggers and no model" in out


@pytest.mark.usefixtures("raw")
def test_cancelled(writer: psycopg.Connection[Any]) -> None:
    """A statement that is cancelled stays cancelled: failing open does not swallow it."""
    writer.execute("SET statement_timeout = '50ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        writer.execute("INSERT INTO project_raw SELECT i, 0 FROM generate_series(10, 3000000) i")
