"""Nothing is read from a schema of our name that a role made which has no right on the project's tables."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from pgobserve.database.async_connection import connect
from pgobserve.errors import FeedUnavailable
from pgobserve.outbox import event_stream, outbox_trust
from pgobserve.outbox.event_subscriptions import EventSubscriptions
from pgobserve.outbox.outbox_pages import ReaderState
from pgobserve.outbox.outbox_reader import OutboxReader
from pgobserve.triggers.server import schema_owners
from pgobserve.wire import ALONE
from tests.integration.conftest import parameters
from tests.integration.outbox.conftest import execute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pgobserve.outbox.event import Event, Reset

#: What a reader looks at first, with code of the stranger's in it.
THEIRS = """
CREATE SCHEMA pgobserve;
GRANT USAGE ON SCHEMA pgobserve TO PUBLIC;
CREATE FUNCTION pgobserve.project_item_i() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN RETURN NULL; END';
CREATE FUNCTION pgobserve.trap() RETURNS bigint LANGUAGE sql AS
  'INSERT INTO public.ran VALUES (current_user); SELECT 0::bigint';
CREATE VIEW pgobserve.outbox_state AS
  SELECT pg_current_snapshot() AS horizon, pgobserve.trap() AS max_bytes;
CREATE VIEW pgobserve.outbox_lost AS SELECT pgobserve.trap() AS last_value;
CREATE VIEW pgobserve.outbox_gate AS SELECT pgobserve.trap() AS last_value;
CREATE TABLE pgobserve.outbox (slot smallint, xid xid8, label text, op text, keys json, old json,
  new json, at timestamptz);
CREATE FUNCTION pgobserve.outbox_rotate(float8) RETURNS text LANGUAGE sql AS
  'SELECT pgobserve.trap(); SELECT ''early''::text';
GRANT SELECT ON ALL TABLES IN SCHEMA pgobserve TO PUBLIC
"""


@pytest.fixture
def stranger(transactional_db: None) -> Iterator[None]:
    """A role that may create schemas, where ours isn't installed."""
    execute("DROP SCHEMA IF EXISTS pgobserve CASCADE")  # of an earlier test
    execute("CREATE TABLE ran (by_whom text)")
    execute("GRANT INSERT ON ran TO PUBLIC")
    execute("CREATE ROLE stranger")
    execute(f"GRANT CREATE ON DATABASE {connection.settings_dict['NAME']} TO stranger")
    yield
    execute("RESET ROLE")
    execute("DROP OWNED BY stranger CASCADE")
    execute("DROP ROLE stranger")
    execute("DROP TABLE ran")
    execute("DROP SCHEMA IF EXISTS pgobserve CASCADE")


@pytest.fixture
def theirs(stranger: None) -> None:
    """And that has made ours, with traps in it."""
    make_theirs()


def make_theirs() -> None:
    """Make the schema as the stranger."""
    with psycopg.connect(**parameters()) as each:
        each.execute("SET ROLE stranger")
        each.execute(THEIRS)


def ran() -> int:
    """Return how often code of the stranger's has run."""
    with psycopg.connect(**parameters()) as each:
        (count,) = each.execute("SELECT count(*) FROM ran").fetchone() or (0,)
    return int(count)


@contextlib.asynccontextmanager
async def reading() -> AsyncIterator[OutboxReader]:
    """A reader that runs."""

    async def call(_: object) -> list[Event | Reset]:
        return []

    reader = OutboxReader(
        subscriptions=EventSubscriptions(),
        parameters=parameters,
        on_change=lambda _: None,
        on_gap=lambda: None,
        call=call,
    )
    task = asyncio.create_task(reader.run())
    try:
        yield reader
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def refusal(reader: OutboxReader) -> str:
    """Wait until the reader has said why it does not read."""
    async with asyncio.timeout(60):
        while reader.state.error is None:
            reader.wake()
            await asyncio.sleep(0.01)
    return reader.state.error


@pytest.mark.usefixtures("theirs")
async def test_reader() -> None:
    """The reader of a process names the role, and is not live."""
    async with reading() as reader:
        error = await refusal(reader)

    assert "belongs to stranger" in error
    assert not reader.live.is_set()
    assert ran() == 0


@pytest.mark.usefixtures("stranger")
async def test_made_later() -> None:
    """The reader looks again when a schema appears that was not there when it connected."""
    async with reading() as reader:
        async with asyncio.timeout(60):
            await reader.live.wait()
        make_theirs()
        error = await refusal(reader)

    assert "belongs to stranger" in error
    assert ran() == 0


@pytest.mark.usefixtures("theirs")
async def test_worker() -> None:
    """Nor does a worker claim a cursor there."""
    session = event_stream.EventStream(
        alias="default", parameters=parameters, tables={}, channel="pgobserve", name="w"
    )
    with pytest.raises(FeedUnavailable, match="belongs to stranger"):
        await anext(session.run(ReaderState()))

    assert ran() == 0


@pytest.mark.usefixtures("theirs")
def test_tail() -> None:
    """The command prints nothing from there."""
    with pytest.raises(CommandError, match="belongs to stranger"):
        call_command("pgobserve", "tail", "--since", "1h")

    assert ran() == 0


@pytest.mark.usefixtures("theirs")
def test_not_taken_for_the_installer() -> None:
    """A trigger function in a schema does not make its owner the role that installed."""
    found = schema_owners.foreign_objects(connection, ALONE)

    assert "schema pgobserve belongs to stranger" in found


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize(
    "right",
    ["GRANT TRIGGER ON project_item TO stranger", "ALTER TABLE project_item OWNER TO stranger"],
)
async def test_installer(right: str) -> None:
    """A role that may put triggers on a table of the project may have installed."""
    with psycopg.connect(**parameters(), autocommit=True) as other:
        other.execute(right)
        each = await connect(parameters())
        try:
            await outbox_trust.check(each, ALONE, 20.0)
        finally:
            await each.close()
            other.execute("ALTER TABLE project_item OWNER TO CURRENT_USER")
