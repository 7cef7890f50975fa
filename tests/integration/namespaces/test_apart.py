"""Two namespaces share nothing, even on one table."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.contrib.auth.models import Group
from django.db import connection

import pgobserve
from pgobserve.mute import muted
from pgobserve.testing import capture_changes
from pgobserve.triggers.server import catalog, outbox_storage
from pgobserve.wire import ALONE, OUTBOX_WAKE_UP, Namespace
from tests.integration.namespaces.conftest import OTHER
from tests.integration.triggers.conftest import Ear, by_each_transport, parameters
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Command = Callable[..., tuple[int, str, str]]
    Run = Callable[..., list[Any]]

INSERT = "INSERT INTO project_item (name, rank) VALUES (%s, 0) RETURNING id"
BOTH = (ALONE, OTHER)


@pytest.fixture
def both(install: Callable[..., Any]) -> None:
    """Triggers of both on the table of items."""
    for each in BOTH:
        install(each, Item)


@pytest.fixture
def ears(clean: None) -> Iterator[dict[Namespace, Ear]]:
    """An ear on the channel of each."""
    found = {each: Ear(each.channel) for each in BOTH}
    yield found
    for each in found.values():
        each.close()


def heard(run: Run, ears: dict[Namespace, Ear], namespace: Namespace, transport: str) -> list[Any]:
    """Return the keys that a namespace has sent, and clear them."""
    texts = ears[namespace].texts()
    if transport == "notify":
        return [key for text in texts for key in json.loads(text)["k"] or [None]]
    assert set(texts) <= {OUTBOX_WAKE_UP}
    rows = run(f"SELECT keys::text FROM {namespace.schema}.outbox ORDER BY at")
    run(f"TRUNCATE {namespace.schema}.outbox")
    return [key for (keys,) in rows for key in (json.loads(keys) if keys else [None])]


def use(settings: Any, namespace: Namespace, **others: Any) -> None:
    """Let the project have a namespace."""
    settings.PGOBSERVE = {"NAMESPACE": namespace.name, "MODELS": ["project.Item"], **others}


@by_each_transport
def test_one_table(
    run: Run,
    both: None,
    ears: dict[Namespace, Ear],
    transport: str,
    command: Command,
    settings: Any,
) -> None:
    """A table that both observe notifies each; without one, it still notifies the other."""
    ((key,),) = run(INSERT, "one")
    assert [heard(run, ears, each, transport) for each in BOTH] == [[key], [key]]

    use(settings, OTHER, TRANSPORT=transport)
    code, out, _ = command("uninstall")
    assert (code, out) == (0, "project.Item: removed on public.project_item\n")

    run("UPDATE project_item SET name = 'two'")
    assert heard(run, ears, ALONE, transport) == [key]
    assert ears[OTHER].texts() == []
    assert run("SELECT to_regnamespace('pgobserve_other')::text") == [(None,)]
    use(settings, ALONE, TRANSPORT=transport)
    assert command("status")[0] == 0


@by_each_transport
def test_tables_of_their_own(
    run: Run, install: Callable[..., Any], ears: dict[Namespace, Ear], transport: str
) -> None:
    """What one alone observes the other neither hears nor finds in its outbox."""
    install(ALONE, Item)
    install(OTHER, Group)
    ((key,),) = run(INSERT, "mine")
    ((group,),) = run("INSERT INTO auth_group (name) VALUES ('theirs') RETURNING id")

    assert heard(run, ears, ALONE, transport) == [key]
    assert heard(run, ears, OTHER, transport) == [group]


@pytest.mark.parametrize("transport", ["notify"])
def test_two_transports(run: Run, install: Callable[..., Any], ears: dict[Namespace, Ear]) -> None:
    """One may write to its outbox what the other only notifies."""
    install(ALONE, Item)
    install(OTHER, Item, transport="outbox")
    ((key,),) = run(INSERT, "one")

    assert heard(run, ears, ALONE, "notify") == [key]
    assert heard(run, ears, OTHER, "outbox") == [key]
    assert run("SELECT to_regclass('pgobserve.outbox')::text") == [(None,)]


@by_each_transport
def test_muted(
    run: Run,
    both: None,
    ears: dict[Namespace, Ear],
    transport: str,
    settings: Any,
) -> None:
    """What one project mutes the other hears row by row."""
    use(settings, OTHER)
    with muted():
        ((key,),) = run(INSERT, "one")

    assert heard(run, ears, ALONE, transport) == [key]
    assert heard(run, ears, OTHER, transport) == [None]


@pytest.mark.parametrize("transport", ["outbox"])
def test_rotation(run: Run, both: None, command: Command, settings: Any) -> None:
    """Rotating the one outbox leaves the other's slots, rows and limit alone."""
    run(INSERT, "one")
    for each in BOTH:
        run(f"UPDATE {each.schema}.outbox_state SET rotated_at = rotated_at - interval '3 hours'")
    before = run("SELECT rotated_at, max_bytes, empty_slot FROM pgobserve.outbox_state")

    use(settings, OTHER, TRANSPORT="outbox", OUTBOX_RETENTION=1, OUTBOX_MAX_BYTES=12_345_678)
    assert command("prune")[0] == 0

    assert run("SELECT max_bytes FROM pgobserve_other.outbox_state") == [(12_345_678,)]
    assert run("SELECT last_value FROM pgobserve_other.outbox_gate") == [(1,)]
    assert run("SELECT last_value FROM pgobserve.outbox_gate") == [(0,)]
    assert run("SELECT count(*) FROM pgobserve.outbox") == [(1,)]
    assert run("SELECT rotated_at, max_bytes, empty_slot FROM pgobserve.outbox_state") == before


@pytest.mark.parametrize("transport", ["outbox"])
def test_locks(both: None) -> None:
    """One that is rotating its outbox does not keep the other from it."""
    with psycopg.connect(**parameters()) as holder, psycopg.connect(**parameters()) as writer:
        holder.execute("SELECT pgobserve.outbox_rotate(3600)")
        assert writer.execute("SELECT pgobserve_other.outbox_rotate(3600)").fetchone() != (
            "elsewhere",
        )


@pytest.mark.parametrize("transport", ["outbox"])
async def test_cursors(both: None, settings: Any) -> None:
    """Workers of both projects have a cursor of the same name, and work at the same time."""
    use(settings, ALONE)
    ours = pgobserve.events("project.Item", cursor="receipts")
    use(settings, OTHER)
    theirs = pgobserve.events("project.Item", cursor="receipts")
    async with aclosing(ours), aclosing(theirs), asyncio.timeout(60):
        first = [asyncio.ensure_future(anext(each)) for each in (ours, theirs)]
        async with await psycopg.AsyncConnection.connect(**parameters(), autocommit=True) as writer:
            for each in BOTH:
                query = f"SELECT count(*) FROM {each.schema}.outbox_cursor"
                while await (await writer.execute(query)).fetchone() != (1,):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await writer.execute(INSERT, ["one"])
        found = await asyncio.gather(*first)

    assert [each.new.name for each in found if isinstance(each, pgobserve.Event)] == ["one", "one"]


@by_each_transport
def test_every_command(
    command: Command, settings: Any, transport: str, run: Run, tmp_path: Any
) -> None:
    """With a namespace, nothing that a project runs makes or needs what has the plain names."""
    use(settings, OTHER, TRANSPORT=transport)
    assert command("install")[0] == 0
    assert command("status")[0] == 0
    assert command("status", "project.Item")[0] == 0
    _, out, _ = command("doctor", "--json")
    levels = {each["check"]: each["level"] for each in json.loads(out)}
    assert {levels[name] for name in ("triggers", "namespace", "outbox", "outbox cursors")} == {
        "ok"
    }
    assert command("prune")[0] == 0
    assert "channel pgobserve_other" in command("why", "project.Item")[1]
    with capture_changes(Item) as changes:
        Item.objects.create(name="one")
        assert [each.action for each in changes] == ["create"]
    with muted(Item):
        Item.objects.create(name="two")
    if transport == "outbox":
        assert "project.item" in command("tail", "--since", "1h")[1].lower()
        assert outbox_storage.exists(connection, OTHER)
    everything = command("sql", "--all")[1] + command("sql", "--reverse")[1]
    everything += command("migration", "project", "--dry-run")[1]
    assert "pgobserve_other." in everything
    assert "pgobserve." not in everything.replace("'pgobserve.", "").replace(
        '"pgobserve.outbox"', ""
    )
    assert run("SELECT to_regnamespace('pgobserve')::text") == [(None,)]
    assert command("uninstall")[0] == 0
    assert run("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'pgobserve%'") == [(0,)]


def test_catalog(both: None) -> None:
    """Each finds its own triggers alone."""
    for each in BOTH:
        (found,) = catalog.triggers(connection, each).values()
        assert {*found} == {*each.triggers}
        assert {one.trigger.function_schema for one in found.values()} == {each.schema}
