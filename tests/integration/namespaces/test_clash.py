"""Two projects in one namespace are found, named, and kept from each other's tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from django.core.checks import run_checks
from django.db import connection

from pgobserve.subscribe import feeds
from pgobserve.triggers.server import catalog
from pgobserve.wire import ALONE
from tests.integration.deliver.conftest import connect  # noqa: F401 (a fixture)
from tests.integration.deliver.test_list import ItemListConsumer
from tests.integration.namespaces.conftest import OTHER
from tests.integration.triggers.conftest import by_each_transport
from tests.project.models import Item
from tests.project.shapes import Raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Command = Callable[..., tuple[int, str, str]]
    Run = Callable[..., list[Any]]

REMEDY = "Set PGOBSERVE['NAMESPACE'] in one of the two projects"


@pytest.fixture(autouse=True)
def observed(settings: Any, transport: str) -> None:
    """The project observes one table."""
    settings.PGOBSERVE = {"MODELS": ["project.Item"], "TRANSPORT": transport}


@pytest.fixture
def relabel(run: Run) -> Callable[[str, str], None]:
    """Let a table's triggers be those of a model that this project does not have."""

    def relabel(table: str, label: str) -> None:
        found = run(
            "SELECT tgname, obj_description(oid, 'pg_trigger') FROM pg_trigger"
            " WHERE tgrelid = %s::regclass AND NOT tgisinternal",
            table,
        )
        assert {name for name, _ in found} >= {*ALONE.triggers}
        for name, text in found:
            prefix, brace, rest = text.partition("{")
            comment = json.dumps({**json.loads(brace + rest), "label": label})
            run(f"COMMENT ON TRIGGER {name} ON {table} IS '{prefix}{comment}'")

    return relabel


@pytest.fixture
def theirs(
    run: Run, install: Callable[..., Any], relabel: Callable[[str, str], None]
) -> Iterator[None]:
    """Another project observes a table of its own, without a namespace."""
    run("CREATE TABLE project_raw (id bigint PRIMARY KEY)")
    install(ALONE, Raw, project="their.urls")
    relabel("project_raw", "legacy.raw")
    run("ALTER TABLE project_raw RENAME TO legacy_raw")
    yield
    run("DROP TABLE legacy_raw")


def states(command: Command) -> list[tuple[str, str]]:
    """Return what ``status`` says of each table."""
    return [(each["label"], each["state"]) for each in json.loads(command("status", "--json")[1])]


@by_each_transport
@pytest.mark.usefixtures("theirs")
def test_found(command: Command, run: Run) -> None:
    """All that looks names the other project and the remedy; nothing removes its triggers."""
    code, _, said = command("install")
    assert code == 0
    assert REMEDY in said
    assert "the project their.urls installed for legacy.raw" in said

    assert states(command) == [("project.Item", "ok"), ("legacy.raw", "clash")]
    code, out, _ = command("status")
    assert code == 1
    assert REMEDY in out

    found = {each["check"]: each for each in json.loads(command("doctor", "--json")[1])}
    assert found["namespace"]["level"] == "problem"
    assert found["namespace"]["advice"].startswith(REMEDY)
    assert "their.urls" in found["namespace"]["details"][0]
    assert found["triggers"]["level"] == "ok"

    (warning,) = [each for each in run_checks(databases=["default"]) if each.id == "pgobserve.W019"]
    assert warning.hint is not None
    assert warning.hint.startswith(REMEDY)

    command("uninstall", "--orphans")
    command("uninstall")
    left = run(
        "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE 'pgobserve%'"
    )
    assert left == [("legacy_raw",)]


@by_each_transport
@pytest.mark.usefixtures("theirs")
def test_remedy(command: Command, settings: Any) -> None:
    """With a namespace of its own the project is well, and the other's triggers are not looked at."""
    settings.PGOBSERVE = {**settings.PGOBSERVE, "NAMESPACE": "other"}
    code, _, said = command("install")
    assert code == 0
    assert REMEDY not in said
    assert states(command) == [("project.Item", "ok")]
    found = {each["check"]: each for each in json.loads(command("doctor", "--json")[1])}
    assert found["namespace"]["level"] == "ok", found["namespace"]


@by_each_transport
def test_one_table(
    command: Command,
    install: Callable[..., Any],
    relabel: Callable[[str, str], None],
    settings: Any,
) -> None:
    """On a table that both observe the triggers that are there stay, and ``install`` says why."""
    install(ALONE, Item, project="their.urls")
    relabel("project_item", "legacy.item")
    before = catalog.triggers(connection, ALONE)

    code, out, said = command("install")

    assert code != 0
    assert "another project (their.urls, for legacy.item)" in out + said
    assert "PGOBSERVE['NAMESPACE']" in out + said
    assert catalog.triggers(connection, ALONE) == before
    assert ("legacy.item", "clash") in states(command)

    settings.PGOBSERVE = {**settings.PGOBSERVE, "NAMESPACE": "other"}
    assert command("install")[0] == 0
    assert states(command) == [("project.Item", "ok")]
    assert catalog.triggers(connection, ALONE) == before


@by_each_transport
def test_renamed_model(
    command: Command,
    install: Callable[..., Any],
    relabel: Callable[[str, str], None],
    settings: Any,
) -> None:
    """Triggers of this project for a model that has another name now are brought up to date."""
    install(ALONE, Item, project=settings.ROOT_URLCONF)
    relabel("project_item", "project.thing")
    assert command("install")[0] == 0
    assert states(command) == [("project.Item", "ok")]


@by_each_transport
def test_two_deployments(
    command: Command, install: Callable[..., Any], run: Run, settings: Any
) -> None:
    """Staging and production whose roles have different schemas clash, until one has a name."""
    run("CREATE SCHEMA staging")
    try:
        run("CREATE TABLE staging.project_item (LIKE project_item INCLUDING ALL)")
        change = f"ALTER ROLE CURRENT_USER IN DATABASE {connection.settings_dict['NAME']}"
        run(f"{change} SET search_path = staging")
        connection.close()
        install(ALONE, Item, project=settings.ROOT_URLCONF)
        assert states(command) == [("project.Item", "ok")]
        run(f"{change} RESET search_path")
        connection.close()

        assert command("install")[0] == 0
        assert states(command) == [("project.Item", "ok"), ("project.item", "clash")]
        assert "from the schema staging" in command("status")[1]
    finally:
        run(f"{change} RESET search_path")
        connection.close()
        run("DROP SCHEMA staging CASCADE")


@pytest.mark.parametrize("transport", ["notify"])
def test_one_channel(command: Command, settings: Any) -> None:
    """Two namespaces that speak on one channel are found."""
    settings.PGOBSERVE = {"MODELS": ["project.Item"], "NAMESPACE": "other", "CHANNEL": "both"}
    command("install")
    settings.PGOBSERVE = {"MODELS": ["project.Item"], "CHANNEL": "both"}
    command("install")
    found = {each["check"]: each for each in json.loads(command("doctor", "--json")[1])}
    assert found["namespace"]["level"] == "warning"
    assert found["namespace"]["details"][0] == "public.project_item, trigger pgobserve_other_d"


@by_each_transport
async def test_wrong_namespace(
    connect: Any,  # noqa: F811
    observed_elsewhere: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process with another namespace than the triggers' refuses, and the log says which it has."""
    monkeypatch.setattr(feeds, "_logged", set())
    socket = await connect(ItemListConsumer)

    assert (await socket.ask("subscribe_list", request_id=1))["response_status"] == 503
    (said,) = [each for each in caplog.messages if "was refused" in each]
    assert "namespace pgobserve, channel pgobserve, of the database 'default'" in said


@pytest.fixture
def observed_elsewhere(install: Callable[..., Any]) -> None:
    """Triggers in another namespace than this project's."""
    install(OTHER, Item)
