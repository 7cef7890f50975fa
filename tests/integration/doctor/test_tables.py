"""Observed tables: their triggers, routes, rights, and settings that mute them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.install.consumer_registry import observed_models, observed_routes
from pgobserve.triggers import installer, registry
from tests.bookshelf.models import Author, Publisher
from tests.bookshelf.tables import library
from tests.integration.doctor.watching import Books, Items
from tests.project import asgi
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.doctor.conftest import Command, Look

    Run = Callable[..., list[Any]]


@pytest.fixture
def observed(command: Command) -> None:
    """Items have their triggers."""
    for each in registry.build([Item]):
        installer.install(each, using="default")


@pytest.fixture
def related(look: Look, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Books are watched with what belongs to them; what lies between has triggers without routes."""
    settings.PGOBSERVE = {}
    settings.ASGI_APPLICATION = f"{asgi.__name__}.application"
    monkeypatch.setattr("pgobserve.install.consumer_registry._consumers", {Books})
    monkeypatch.setattr("pgobserve.install.consumer_registry._observers", set())
    monkeypatch.setattr("pgobserve.install.targets.observed_models", observed_models)
    monkeypatch.setattr("pgobserve.install.targets.observed_routes", observed_routes)
    with library():
        for each in registry.build([*observed_models(), Author, Publisher]):
            installer.install(each, using="default")
        yield


def test_nothing_installed(look: Look) -> None:
    """An observed table without triggers is a problem."""
    found = look("triggers")

    assert found.level == "problem"
    assert found.details[0].startswith("Changes of project.Item are not observed yet: run ")


@pytest.mark.usefixtures("observed")
def test_other_columns(look: Look, settings: Any) -> None:
    """Triggers that are outdated for any other reason than routes are a problem, too."""
    assert look("triggers").level == "ok"
    settings.PGOBSERVE = {"MODELS": {"project.Item": {"columns": ["name"]}}}

    assert look("triggers").level == "problem"


@pytest.mark.usefixtures("observed")
def test_orphan(look: Look, run: Run) -> None:
    """A table that belongs to no model is worth a warning."""
    run("ALTER TABLE project_item RENAME TO was_item")
    run("CREATE TABLE project_item (LIKE was_item INCLUDING ALL)")
    try:
        run("DROP SCHEMA IF EXISTS other CASCADE")
        installer.install(registry.build([Item])[0], using="default")
        found = look("triggers")
    finally:
        run("DROP TABLE project_item")
        run("ALTER TABLE was_item RENAME TO project_item")

    assert found.level == "warning"
    assert found.advice == "Run manage.py pgobserve uninstall --orphans."


@pytest.mark.usefixtures("related")
def test_routes(look: Look, command: Command) -> None:
    """Triggers that only lack values of routes are a warning, not a problem."""
    found = look("routes")
    assert found.level == "warning"
    assert found.details == ("library.Book_tags: book_id", "library.Loan: book_id")
    assert found.advice == "Run manage.py pgobserve install library.Book_tags library.Loan."
    assert look("triggers").level == "ok"
    assert command("status")[0] == 1

    assert command("install")[0] == 0
    assert look("routes").level == "ok"


@pytest.mark.usefixtures("related")
def test_routes_by_outbox(look: Look, settings: Any) -> None:
    """The outbox has all columns, whatever its triggers' routes."""
    settings.PGOBSERVE = {"TRANSPORT": "outbox"}
    for each in registry.build([*observed_models()], transport="outbox"):
        installer.install(each, using="default")

    assert look("routes").level == "ok"


@pytest.mark.usefixtures("related")
def test_routes_and_more(look: Look, run: Run) -> None:
    """If something else is amiss there as well, it is a problem."""
    run("ALTER TABLE library_loan DISABLE TRIGGER pgobserve_d")

    found = look("triggers")
    assert found.level == "problem"
    assert len(found.details) == 1
    assert "library.Loan is disabled" in found.details[0]


@pytest.mark.usefixtures("observed")
@pytest.mark.parametrize(
    ("statement", "reset", "sentence"),
    [
        (
            "SET session_replication_role = replica",
            "RESET session_replication_role",
            "session_replication_role is replica",
        ),
        ("SET pgobserve.mute = 'on'", "RESET pgobserve.mute", "pgobserve.mute is on"),
    ],
)
def test_silence(look: Look, run: Run, statement: str, reset: str, sentence: str) -> None:
    """A setting of the session that keeps triggers silent is a problem."""
    assert look("silence").level == "ok"
    run(statement)
    try:
        found = look("silence")
    finally:
        run(reset)

    assert found.level == "problem"
    assert found.state.startswith(f"{sentence} in sessions of this role")


def test_triggers_that_fire_always(look: Look, run: Run, settings: Any) -> None:
    """Replication's setting does not silence triggers that fire for it."""
    settings.PGOBSERVE = {"MODELS": {"project.Item": {"always": True}}}
    installer.install(
        registry.build([Item], {"project.Item": {"always": True}})[0], using="default"
    )
    run("SET session_replication_role = replica")
    try:
        assert look("silence").level == "ok"
    finally:
        run("RESET session_replication_role")


def test_silence_of_others(look: Look, run: Run) -> None:
    """What others write in silence, by a setting of their role, is a warning."""
    run("CREATE ROLE loader")
    run("ALTER ROLE loader SET session_replication_role = replica")
    try:
        found = look("silence")
    finally:
        run("DROP ROLE loader")

    assert found.level == "warning"
    assert found.details == ("session_replication_role=replica for the role loader",)


def test_replication(look: Look, run: Run) -> None:
    """A table that logical replication writes to is a problem."""
    assert look("replication").level == "ok"
    run("SET allow_system_table_mods = on")
    try:
        run("INSERT INTO pg_subscription_rel VALUES (1, 'project_item'::regclass, 'r', '0/0')")
        found = look("replication")
    finally:
        run("DELETE FROM pg_subscription_rel WHERE srsubid = 1")
        run("RESET allow_system_table_mods")

    assert found.level == "problem"
    assert found.details == ("project.Item (public.project_item)",)


def test_rights(look: Look, run: Run) -> None:
    """A role that may not read what is observed can't be served; one that may not install can."""
    assert look("rights").state.endswith("may read all observed tables, and install.")
    ((owner,),) = run("SELECT current_user")
    run("CREATE ROLE reader")
    run("SET ROLE reader")
    try:
        blind = look("rights")
        run("RESET ROLE")
        run("GRANT SELECT ON project_item TO reader")
        run("SET ROLE reader")
        found = look("rights")
    finally:
        run("RESET ROLE")
        run("DROP OWNED BY reader")
        run("DROP ROLE reader")

    assert (blind.level, blind.details) == ("problem", ("project.Item",))
    assert blind.advice == "GRANT SELECT on them to reader."
    assert found.level == "ok"
    assert found.advice == f"Run install as the owner of the tables: {owner}."


def test_owner_who_may_not_create(look: Look, run: Run) -> None:
    """Who owns the tables needs a place for the functions, too."""
    ((owner,),) = run("SELECT current_user")
    run("CREATE ROLE modest")
    run("ALTER TABLE project_item OWNER TO modest")
    run("SET ROLE modest")
    try:
        found = look("rights")
    finally:
        run("RESET ROLE")
        run(f'ALTER TABLE project_item OWNER TO "{owner}"')
        run("DROP OWNED BY modest")
        run("DROP ROLE modest")

    assert found.state.endswith("but not install: it may not create in the database.")


def test_consumers(look: Look, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning says that nothing is observed, or that no consumer is known."""
    assert look("consumers").state.startswith("ASGI_APPLICATION is not set")
    settings.ASGI_APPLICATION = f"{asgi.__name__}.application"
    monkeypatch.setattr("pgobserve.install.consumer_registry._consumers", {Items})
    assert look("consumers").state == ("Consumers with subscriptions: 1. Observed tables: 1.")
    settings.PGOBSERVE = {}
    assert look("consumers").level == "warning"
    assert look("consumers").state.startswith("Nothing is observed")
