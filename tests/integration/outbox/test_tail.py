"""``pgobserve tail`` prints changes, for people and for programs, and contents only if asked."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from pgobserve.triggers import installer, registry
from tests.integration.conftest import parameters
from tests.integration.outbox.conftest import DELETE, INSERT, UPDATE, execute
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def tail(*arguments: str) -> tuple[str, str]:
    """Run it; return output and errors."""
    out, err = io.StringIO(), io.StringIO()
    call_command("pgobserve", "tail", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def facts(*arguments: str) -> list[dict[str, Any]]:
    """Return what it tells a program."""
    return [json.loads(line) for line in tail("--json", *arguments)[0].splitlines()]


class Follower(threading.Thread):
    """One who follows in a thread, until his connection is ended."""

    def __init__(self, *arguments: str) -> None:
        super().__init__(name="tail", daemon=True)
        self.arguments = arguments
        self.out = io.StringIO()
        self.error = ""
        self._other = psycopg.connect(**parameters(), autocommit=True)

    def run(self) -> None:
        try:
            call_command("pgobserve", "tail", *self.arguments, stdout=self.out)
        except CommandError as error:
            self.error = str(error)
        finally:
            connection.close()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for what no event tells."""
        deadline = time.monotonic() + 90
        while not condition():
            assert self.is_alive(), self.error
            assert time.monotonic() < deadline, self.out.getvalue()
            time.sleep(0.02)

    def listeners(self, condition: str = "true") -> list[int]:
        """Return the backends that wait for notifications."""
        query = (
            "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = "
            "current_database() AND (query LIKE 'LISTEN%' OR query LIKE '%outbox_lost%') "
            f"AND {condition}"
        )
        return [row[0] for row in self._other.execute(query.encode())]

    def follows(self) -> bool:
        """Tell whether it prints what is committed from now on: it knows where the outbox ends."""
        return bool(self.listeners("state = 'idle' AND query LIKE '%outbox_lost%'"))

    def lines(self, count: int) -> list[str]:
        """Wait for so many lines."""
        self.until(lambda: self.out.getvalue().count("\n") >= count)
        return self.out.getvalue().splitlines()

    def stop(self) -> None:
        """End its connection, and wait for its end."""
        for pid in self.listeners():
            self._other.execute("SELECT pg_terminate_backend(%s, 90000)", [pid])
        self.join(90)
        assert not self.is_alive()
        self._other.close()


@pytest.fixture
def follow(transactional_db: None) -> Iterator[Callable[..., Follower]]:
    """Return a function that follows; it ends with the test."""
    made: list[Follower] = []

    def start(*arguments: str) -> Follower:
        each = Follower(*arguments)
        made.append(each)
        each.start()
        each.until(each.follows)
        return each

    yield start
    for each in made:
        each.stop()
        assert "can't be read" in each.error


def test_since(boxed: None) -> None:
    """It prints what the outbox has: when, who, what became of which row, and what differs."""
    execute(INSERT, 1, "one")
    execute("UPDATE project_item SET name = 'two', rank = 1 WHERE id = 1")
    execute(DELETE, 1)
    create, update, delete = facts("--since", "1h")

    assert [each["action"] for each in (create, update, delete)] == ["create", "update", "delete"]
    assert {each["key"] for each in (create, update, delete)} == {"1"}
    assert {each["label"] for each in (create, update, delete)} == {"project.item"}
    assert update["changed"] == ["name", "rank"]
    assert create["changed"] == ["id", "name", "rank"]
    assert create["xid"] < update["xid"] < delete["xid"]
    assert not {"old", "new"} & update.keys()


def test_since_a_time(boxed: None) -> None:
    """What is older than asked for is left out."""
    execute(INSERT, 1, "one")
    ((moment,),) = execute("SELECT clock_timestamp()")
    execute(INSERT, 2, "two")

    assert [each["key"] for each in facts("--since", moment.isoformat())] == ["2"]


def test_rows(boxed: None) -> None:
    """Contents are printed when asked for, as the server has them."""
    execute(INSERT, 1, "one")
    execute(UPDATE, "two", 1)
    create, update = facts("--since", "1h", "--rows")

    assert (create["old"], create["new"]) == (None, {"id": 1, "name": "one", "rank": 0})
    assert (update["old"]["name"], update["new"]["name"]) == ("one", "two")
    text, _ = tail("--since", "1h", "--rows")
    assert 'name: "one" → "two"' in text
    assert "one" not in tail("--since", "1h")[0]


def test_for_people(boxed: None) -> None:
    """Lines are aligned, and say the model's label as people write it."""
    execute(INSERT, 1, "one")
    execute(UPDATE, "two", 1)
    execute("TRUNCATE project_item CASCADE")
    lines = tail("--since", "1h")[0].splitlines()

    assert [re.split(r" {2,}", line)[2:] for line in lines] == [
        ["create", "project.Item", "1"],
        ["update", "project.Item", "1", "name"],
        ["reset", "project.Item", "*", "whole table"],
    ]
    assert len({line.index("project.Item") for line in lines}) == 1
    assert "\x1b" not in "".join(lines)


def test_labels(boxed: None) -> None:
    """Only changes of the models that are named are printed."""
    execute(INSERT, 1, "one")

    assert facts("project.Item", "--since", "1h")
    assert facts("auth.User", "--since", "1h") == []


def test_says_where_the_outbox_begins(boxed: None) -> None:
    """If more is asked for than the outbox may have, it says from when it has something."""
    execute(INSERT, 1, "one")

    assert "The outbox begins at" in tail("--since", "1d")[1]


def test_no_outbox(transactional_db: None) -> None:
    """Without an outbox --since fails, and the error names the remedy."""
    with pytest.raises(CommandError, match="run install"):
        tail("--since", "1h")


@pytest.mark.parametrize("text", ["yesterday", "10", "h", "-", "1e999d"])
def test_bad_time(text: str) -> None:
    """What is no time is refused, with examples of what is one."""
    with pytest.raises(CommandError, match="10m"):
        tail(f"--since={text}")


def test_follow_outbox(boxed: None, follow: Callable[..., Follower]) -> None:
    """Changes are printed as they are committed."""
    execute(INSERT, 1, "before")
    follower = follow("--json", "--since", "1h", "--follow")
    follower.lines(1)
    execute(UPDATE, "two", 1)
    before, after = map(json.loads, follower.lines(2))

    assert (before["action"], after["action"], after["changed"]) == ("create", "update", ["name"])


def test_follow_notifications(transactional_db: None, follow: Callable[..., Follower]) -> None:
    """With NOTIFY keys are printed; what differs is not known."""
    for each in registry.build([Item]):
        installer.install(each, using="default")
    follower = follow("--json")
    execute(INSERT, 1, "one")
    execute(
        "INSERT INTO auth_user (username, password, first_name, last_name, email, is_superuser, "
        "is_staff, is_active, date_joined) VALUES ('a', '', '', '', '', false, false, true, now())"
    )
    execute("SELECT pg_notify('pgobserve', 'garbled')")
    execute("TRUNCATE project_item CASCADE")
    create, reset = map(json.loads, follower.lines(2))

    assert (create["action"], create["key"], create["changed"]) == ("create", "1", None)
    assert (reset["action"], reset["why"]) == ("reset", "whole table")


def test_follow_label(boxed: None, follow: Callable[..., Follower]) -> None:
    """What is not named is not printed, over NOTIFY either."""
    follower = follow("--json", "auth.User")
    execute(INSERT, 1, "one")
    for label in ("project.item", "auth.user"):
        payload = f'{{"v":1,"t":"{label}","o":"D","x":"5","k":[3]}}'
        execute("SELECT pg_notify('pgobserve', %s)", payload)

    assert [json.loads(line)["label"] for line in follower.lines(1)] == ["auth.user"]


def test_follow_reset(boxed: None, follow: Callable[..., Follower]) -> None:
    """Where changes may be missing a line says so."""
    follower = follow()
    execute(INSERT, 1, "one")
    follower.lines(1)
    execute("SELECT setval('pgobserve.outbox_gate', 3)")
    execute(INSERT, 2, "two")
    execute("SELECT setval('pgobserve.outbox_gate', 0)")

    assert "not written" in follower.lines(2)[1]
