"""Whether feeds could LISTEN, found out as they would do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connection, transaction

from tests.integration.conftest import free_port, parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.doctor.conftest import Look


def test_listen(look: Look) -> None:
    """Where LISTEN works, it says over which connection."""
    found = look("listen")

    given = parameters()
    assert found.level == "ok"
    assert f":{given['port']}, database {given['dbname']}, as {given['user']}, " in found.state


def test_in_a_transaction(look: Look) -> None:
    """Inside a transaction nothing is notified, which is not the connection's fault."""
    with transaction.atomic():
        assert look("listen").level == "ok"


def test_pool(look: Look, settings: Any, bouncer: Callable[..., dict[str, Any]]) -> None:
    """A proxy that pools transactions is named as such; one that pools sessions is fine."""
    settings.PGOBSERVE = {"CONNECTION": {"default": bouncer("transaction")}}
    found = look("listen")
    assert found.level == "problem"
    assert "Does it go through a transaction-pooling proxy, like PgBouncer?" in found.state
    assert found.advice.startswith("Point PGOBSERVE['CONNECTION'] at the server itself")

    settings.PGOBSERVE = {"CONNECTION": {"default": bouncer("session")}}
    assert look("listen").level == "ok"


def test_pool_of_djangos_connections(
    look: Look,
    settings: Any,
    bouncer: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If feeds go round a pool, Django must know that its own connections come from it."""
    settings.PGOBSERVE = {"CONNECTION": {"default": parameters()}}
    assert look("pooling").level == "ok"

    through = bouncer("transaction")
    monkeypatch.setattr(connection, "get_connection_params", lambda: through)
    found = look("pooling")
    assert found.level == "warning"
    assert found.advice == "Set DATABASES['default']['DISABLE_SERVER_SIDE_CURSORS'] = True."
    assert look("listen").level == "ok"

    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
    assert look("pooling").level == "ok"


def test_another_database(look: Look, settings: Any) -> None:
    """A connection that works, and leads elsewhere, is a problem."""
    settings.PGOBSERVE = {"CONNECTION": {"default": {"dbname": "postgres"}}}
    found = look("listen")

    assert found.level == "problem"
    assert "do not arrive there: it is another server or another database" in found.state
    assert (
        found.advice
        == "Point PGOBSERVE['CONNECTION']['default'] at the database where the rows are written."
    )


@pytest.mark.parametrize("wrong", [{"port": None}, {"nonsense": 1}, {"user": "nobody at all"}])
def test_no_connection(look: Look, settings: Any, wrong: dict[str, Any]) -> None:
    """A connection that fails is reported with the reason and the setting."""
    given = {"port": free_port()} if "port" in wrong else wrong
    settings.PGOBSERVE = {"CONNECTION": {"default": given}}
    found = look("listen")

    assert found.level == "problem"
    assert found.state.startswith("A connection with the feeds' parameters fails: ")
    assert found.advice == "Correct PGOBSERVE['CONNECTION']['default']."


def test_nobody_listens(look: Look, settings: Any) -> None:
    """Where feeds poll the outbox, they need not LISTEN."""
    settings.PGOBSERVE = {
        "TRANSPORT": "outbox",
        "OUTBOX_WAKE": "poll",
        "CONNECTION": {"default": {"port": 1}},
    }

    assert (
        look("listen").state
        == "Feeds do not LISTEN: all changes go to the outbox, which they poll."
    )


def test_feeds(look: Look, settings: Any) -> None:
    """Feeds are counted by process; this command's own connections are none."""
    assert look("feeds").state == "No feed is connected now."
    given = parameters()
    made = [
        psycopg.connect(**given, application_name=name)
        for name in ("pgobserve:1", "pgobserve:1", "pgobserve:2", "pgobserve-doctor")
    ]
    try:
        assert look("feeds").state == "Feeds of 2 server processes are connected (3 sessions)."
        settings.PGOBSERVE = {"CONNECTION": {"default": {"application_name": "shop"}}}
        assert "their application_name is 'shop'" in look("feeds").state
    finally:
        for each in made:
            each.close()
