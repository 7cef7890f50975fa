"""Checks that need no database, on cases that are made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.cli.doctor import server_health
from pgobserve.cli.doctor.case import own
from pgobserve.conf import Settings
from pgobserve.errors import ConfigurationError

if TYPE_CHECKING:
    from pgobserve.cli.doctor.case import Examination


def _case(
    version: tuple[int, int] = (18, 3), options: Any = None, answer: Any = None, **settings: Any
) -> Examination:
    connection = SimpleNamespace(
        get_database_version=lambda: version, settings_dict={"OPTIONS": options or {}, **settings}
    )
    case: Any = SimpleNamespace(
        alias="default", connection=connection, settings=Settings(), query=lambda _: answer
    )
    return case


@pytest.mark.parametrize(
    ("version", "level"),
    [((13, 23), "problem"), ((14, 0), "ok"), ((18, 9), "ok"), ((19, 0), "warning")],
)
def test_version(version: tuple[int, int], level: str) -> None:
    """Versions before those that are supported do not work; later ones may."""
    assert server_health.version(_case(version)).level == level


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ((14, 20), "warning"),
        ((14, 21), "ok"),
        ((15, 15), "warning"),
        ((15, 16), "ok"),
        ((16, 11), "warning"),
        ((16, 12), "ok"),
        ((17, 7), "warning"),
        ((17, 8), "ok"),
        ((18, 1), "warning"),
        ((18, 2), "ok"),
        ((19, 0), "ok"),
    ],
)
def test_update(version: tuple[int, int], level: str) -> None:
    """Releases with the bug in NOTIFY get a warning that names the fixed release."""
    found = server_health.update(_case(version))

    assert found.level == level
    assert ("or newer" in found.advice) == (level == "warning")


@pytest.mark.parametrize(("replica", "level"), [(True, "problem"), (False, "ok")])
def test_standby(replica: bool, level: str) -> None:
    """A standby is a problem."""
    assert server_health.standby(_case(answer=[(replica,)])).level == level


@pytest.mark.parametrize(
    ("pool", "level"),
    [
        (None, "ok"),
        (True, "ok"),
        ({"min_size": 2}, "problem"),
        ({"min_size": 1, "max_size": 2}, "problem"),
        ({"max_size": 3}, "ok"),
        ({"min_size": 8, "max_size": None}, "ok"),
    ],
)
def test_pool(pool: Any, level: str) -> None:
    """A pool must have more connections than the loader has threads."""
    assert server_health.pool(_case(options={"pool": pool})).level == level


def test_autocommit() -> None:
    """Only an explicit False is a problem."""
    assert server_health.autocommit(_case()).level == "ok"
    assert server_health.autocommit(_case(AUTOCOMMIT=True)).level == "ok"
    assert server_health.autocommit(_case(AUTOCOMMIT=False)).level == "problem"


@pytest.mark.parametrize(
    ("given", "level", "told"),
    [
        ({}, "ok", ""),
        ({"MAX_LIST_ROWS": 100_001}, "warning", "a list of so many rows is read in one"),
        ({"MAX_LIST_ROWS": 0}, "problem", "MAX_LIST_ROWS must be a whole number of at least 1"),
        ({"LOADER_THREADS": "2"}, "problem", "LOADER_THREADS must be a whole number"),
        (
            {"CONNECTION": {"other": {}}},
            "problem",
            "CONNECTION names 'other', which DATABASES lacks",
        ),
    ],
)
def test_settings(settings: Any, given: dict[str, Any], level: str, told: str) -> None:
    """Numbers that can't be, and names that are not there, are problems."""
    settings.PGOBSERVE = given
    case = _case()
    vars(case)["settings"] = Settings(**given)
    found = server_health.settings(case)

    assert found.level == level
    assert told in " ".join([found.state, *found.details])


def test_settings_of_the_outbox(settings: Any) -> None:
    """What the system checks refuse is refused here with the same sentence."""
    settings.PGOBSERVE = {"OUTBOX_RETENTION": 0}

    with pytest.raises(ConfigurationError, match="OUTBOX_RETENTION"):
        server_health.settings(_case())


def test_own_connections() -> None:
    """Connections of this command get what psycopg knows, and are not taken for a feed's."""
    given = {"host": "h", "cursor_factory": object, "pool": True, "application_name": "pgobserve:1"}

    assert own(given) == {"host": "h", "application_name": "pgobserve-doctor"}
