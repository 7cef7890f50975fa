"""How long a statement of a loader's thread may take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import OperationalError, connection, connections

from pgobserve.database.connection_watchdog import ConnectionWatchdog
from pgobserve.database.statement_timeout import limit

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Make the connection anew, and leave nothing to other tests."""
    connection.close()
    yield
    limit(None)
    connection.close()


def run(sql: str) -> object:
    with connections["default"].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


def timeout() -> object:
    return run("SHOW statement_timeout")


def test_cancelled() -> None:
    """A statement that takes too long is cancelled by the server; the connection goes on."""
    upkeep = ConnectionWatchdog("default", timeout=0.2)
    with pytest.raises(OperationalError, match="statement timeout"):
        upkeep.run(lambda: run("SELECT pg_sleep(600)"))

    assert upkeep.run(lambda: run("SELECT 1")) == 1


def test_hooks_can_not_lift_it() -> None:
    """A setting of a hook ends with its work."""
    upkeep = ConnectionWatchdog("default", timeout=5)
    assert upkeep.run(timeout) == "5s"
    upkeep.run(lambda: run("SET statement_timeout = 0"))
    assert upkeep.run(timeout) == "5s"


def test_other_threads() -> None:
    """Connections that are made elsewhere are as they were."""
    before = timeout()
    connection.close()
    assert timeout() == before


@pytest.mark.parametrize(("own", "expected"), [("0", "5s"), ("2s", "2s"), ("1h", "5s")])
def test_shorter_one_stays(own: str, expected: str) -> None:
    """What the project sets holds if it is less."""
    settings = connections["default"].settings_dict
    before = settings["OPTIONS"]
    settings["OPTIONS"] = {**before, "options": f"-c statement_timeout={own}"}
    try:
        assert ConnectionWatchdog("default", timeout=5).run(timeout) == expected
    finally:
        settings["OPTIONS"] = before


def test_behind_a_pool_of_transactions() -> None:
    """Nothing is set on a session that others are given."""
    settings = connections["default"].settings_dict
    before = settings.get("DISABLE_SERVER_SIDE_CURSORS", False)
    settings["DISABLE_SERVER_SIDE_CURSORS"] = True
    try:
        assert ConnectionWatchdog("default", timeout=5).run(timeout) == "0"
    finally:
        settings["DISABLE_SERVER_SIDE_CURSORS"] = before
