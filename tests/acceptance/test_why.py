"""A change that was not published: ``pgobserve why`` explains it, and its probe shows it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.acceptance import server as processes
    from tests.acceptance.client import Client


def _ask(database: processes.Database, *arguments: str) -> tuple[int, Any]:
    """Run a sub-command in a process of its own; return its exit code and its facts."""
    done = subprocess.run(
        [sys.executable, "-m", "django", "pgobserve", *arguments, "--json"],
        env=database.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("server", ["daphne", "uvicorn"], indirect=True)
async def test_probe(client: Client, server: processes.Server) -> None:
    """A client receives a muted change only after a probe."""
    database = server.database
    [(pk,)] = await database.execute(
        "INSERT INTO auth_user (username, email, password, first_name, last_name,"
        " is_superuser, is_staff, is_active, date_joined)"
        " VALUES (gen_random_uuid(), '', '', '', '', false, false, true, now()) RETURNING id"
    )
    reply = await client.ask("subscribe_instance", pk=pk, request_id=1)
    await database.execute(
        "WITH muted AS MATERIALIZED (SELECT set_config('pgobserve.mute', 'on', true))"
        " UPDATE auth_user SET email = 'a@example.com' FROM muted WHERE id = %s",
        pk,
    )
    code, answer = _ask(database, "why", "auth.User", str(pk), "--probe")
    update = await client.receive()
    _, checks = _ask(database, "doctor")

    assert reply["response_status"] == 201
    assert (code, answer["obstacles"]) == (0, [])
    assert "Feeds of 1 server process have received it too" in answer["remarks"][-1]
    assert (update["action"], update["data"]["email"]) == ("update", "a@example.com")
    (feeds,) = (each["state"] for each in checks if each["check"] == "feeds")
    assert feeds.startswith("Feeds of 1 server process are connected")
