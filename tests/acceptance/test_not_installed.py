"""A table without its triggers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance import server as processes
from tests.acceptance.client import connected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def bare_server(log_directory: Path) -> Iterator[processes.Server]:
    """A server whose database has the tables and none of the triggers."""
    with processes.database() as database:
        database.manage("migrate", "--run-syncdb", "--verbosity", "0")
        with processes.serve("daphne", database, log_directory) as running:
            yield running


async def test_the_503_names_the_remedy_which_helps(bare_server: processes.Server) -> None:
    """Subscribing before the install is a 503 that says what to do; done, the same socket works."""
    database = bare_server.database
    [(pk,)] = await database.execute(
        "INSERT INTO auth_user (username, email, password, first_name, last_name,"
        " is_superuser, is_staff, is_active, date_joined)"
        " VALUES ('test', '', '', '', '', false, false, true, now()) RETURNING id"
    )
    async with connected(bare_server.url) as client:
        refused = await client.ask("subscribe_instance", pk=pk, request_id=1)
        read = await client.ask("retrieve", pk=pk)
        database.manage("pgobserve", "install", "auth.User")
        accepted = await client.ask("subscribe_instance", pk=pk, request_id=2)
        await database.execute("UPDATE auth_user SET email = 'a@example.com' WHERE id = %s", pk)
        update = await client.receive()

    assert refused == {
        "action": "subscribe_instance",
        "errors": [
            "Changes of auth.User are not observed yet: run manage.py pgobserve install auth.User"
        ],
        "response_status": 503,
        "request_id": 1,
        "data": None,
    }
    assert read["response_status"] == 200
    assert accepted["response_status"] == 201
    assert (update["action"], update["request_id"]) == ("update", 2)
