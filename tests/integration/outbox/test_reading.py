"""What a read of the outbox finds, whatever order transactions begin and end in."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from pgobserve.hub.snapshot import Snapshot
from pgobserve.outbox import outbox_page
from pgobserve.outbox.cursor import Cursor, GapReason
from pgobserve.outbox.event import TableChange, folded
from pgobserve.outbox.outbox_page import qualified
from pgobserve.wire import ALONE, Operation
from tests.integration.outbox.conftest import DELETE, INSERT, UPDATE, Reading, execute

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.outbox.conftest import Session


def test_committed(reading: Reading) -> None:
    """What was committed since the last read is found, once."""
    execute(INSERT, 1, "one")

    assert reading.names() == [(1, None, "one")]
    assert reading.names() == []


def test_commits_in_another_order(session: Callable[[], Session], reading: Reading) -> None:
    """A transaction that began first and ends last is found when it has ended."""
    first, second = session(), session()
    first.run(INSERT, 1, "first")
    second.run(INSERT, 2, "second")
    second.commit()
    assert reading.names() == [(2, None, "second")]
    first.commit()

    assert reading.names() == [(1, None, "first")]


def test_long_transaction_holds_nobody_up(session: Callable[[], Session], reading: Reading) -> None:
    """While a transaction is open, those that began after it are found, and it is when it ends."""
    long = session()
    long.run(INSERT, 1, "long")
    for number in range(2, 6):
        execute(INSERT, number, "short")
        assert reading.names() == [(number, None, "short")]
    long.run(INSERT, 6, "long")
    long.commit()

    assert reading.names() == [(1, None, "long"), (6, None, "long")]


def test_rolled_back(session: Callable[[], Session], reading: Reading) -> None:
    """What was rolled back, or rolled back to a savepoint, is not found."""
    one = session()
    one.run(INSERT, 1, "gone")
    one.rollback()
    one.run(INSERT, 2, "stays")
    one.run("SAVEPOINT here")
    one.run(INSERT, 3, "gone")
    one.run("ROLLBACK TO here")
    one.run("SAVEPOINT there")
    one.run(INSERT, 4, "stays")
    one.run("RELEASE there")
    one.commit()

    assert reading.names() == [(2, None, "stays"), (4, None, "stays")]


@pytest.mark.parametrize("limit", [1, 500])
def test_order_of_a_row(session: Callable[[], Session], reading: Reading, limit: int) -> None:
    """Changes of a row come in the order of commits, though the later transaction began earlier."""
    execute(INSERT, 1, "a")
    early, late = session(), session()
    early.run(INSERT, 2, "takes its id")
    late.run(UPDATE, "b", 1)
    late.commit()
    early.run(UPDATE, "c", 1)
    early.commit()
    names = [reading.names(limit) for _ in range(3)]

    assert [each for page in names for each in page if each[0] == 1] == [
        (1, None, "a"),
        (1, "a", "b"),
        (1, "b", "c"),
    ]


def test_transaction_is_folded(session: Callable[[], Session], reading: Reading) -> None:
    """What a transaction does to a row comes as one change, in the end."""
    execute(
        "INSERT INTO project_item (id, name, rank) VALUES (1, 'a', 0), (2, 'b', 0), (3, 'c', 0)"
    )
    reading.read()
    one = session()
    one.run(INSERT, 4, "d")
    one.run(UPDATE, "D", 4)
    one.run(INSERT, 5, "never")
    one.run(DELETE, 5)
    one.run(UPDATE, "A", 1)
    one.run(DELETE, 1)
    one.run(UPDATE, "x", 2)
    one.run(UPDATE, "y", 2)
    one.run(UPDATE, "x", 3)
    one.run(UPDATE, "c", 3)
    one.commit()

    assert reading.names() == [(4, None, "D"), (1, "a", None), (2, "b", "y")]


def test_changed_key(reading: Reading) -> None:
    """A row that gets another key is gone from the old one and comes under the new one."""
    execute(INSERT, 1, "one")
    reading.read()
    execute("UPDATE project_item SET id = 2 WHERE id = 1")

    assert sorted(reading.names()) == [(1, "one", None), (2, None, "one")]


def test_truncate(reading: Reading) -> None:
    """TRUNCATE is a change of the whole table, of which nothing is told from before it."""
    execute("BEGIN")
    execute(INSERT, 1, "one")
    execute("TRUNCATE project_item CASCADE")
    execute(INSERT, 2, "two")
    execute("COMMIT")
    page = reading.read()

    assert [entry.operation for entry in page.entries] == [
        Operation.INSERT,
        Operation.TRUNCATE,
        Operation.INSERT,
    ]
    first, second = [change for _, change in folded(page.entries)]
    assert isinstance(first, TableChange)
    assert not isinstance(second, TableChange)
    assert second.key == "2"


def test_pages(session: Callable[[], Session], reading: Reading) -> None:
    """Much is read in pages that never divide a transaction, and a page can be read again."""
    one = session()
    for number in range(20):
        for part in range(3):
            one.run(INSERT, number * 10 + part, str(number))
        one.commit()
    found: list[tuple[int, ...]] = []
    more = True
    while more:
        page = reading.read(limit=4)
        again, reading.cursor = reading.cursor, page.before
        assert reading.read(limit=4).entries == page.entries
        assert reading.cursor == again
        more = page.more
        found += [(entry.xid,) for entry in page.entries]
        # What comes meanwhile is not for these pages.
        execute(UPDATE, "new", 0)
        assert len(page.entries) <= 6

    xids = [xid for (xid,) in found]
    assert len(xids) == 60
    assert [xids[n : n + 3] for n in range(0, 60, 3)] == [[x] * 3 for x in sorted(set(xids))]


def test_pages_of_images(session: Callable[[], Session], reading: Reading) -> None:
    """A page ends when the images are too many, with at least one whole transaction."""
    one = session()
    for number in range(4):
        for part in range(2):
            one.run(INSERT, number * 2 + part, random.Random(number).randbytes(90).hex())
        one.commit()
    begin = reading.cursor
    for page_bytes, expected in ((1, [2, 2, 2, 2]), (600, [4, 4]), (10_000, [8])):
        reading.cursor = begin
        pages = [reading.read(page_bytes=page_bytes)]
        while pages[-1].more:
            pages.append(reading.read(page_bytes=page_bytes))
        # The last may be empty: whether there is more is not known before.
        assert [len(page.entries) for page in pages if page.entries] == expected


def test_large_statement(reading: Reading) -> None:
    """A statement of many rows has several entries, of which all keys are found."""
    execute(
        "INSERT INTO project_item (id, name, rank) SELECT n, 'many', 0 FROM generate_series(1, 3000) n"
    )
    page = reading.read()

    assert len(page.entries) > 1
    assert sorted(
        int(key) for each in page.entries for key in outbox_page.keys(each.keys or "") or ()
    ) == list(range(1, 3001))


def test_reader_of_the_past(reading: Reading) -> None:
    """A cursor from before the outbox was made, or emptied, is told so and can go on."""
    reading.cursor = Cursor(Snapshot(3, 3, frozenset()))
    execute(INSERT, 1, "one")
    page = reading.read()

    assert (page.gap, page.entries) == (GapReason.RETENTION, ())
    execute(INSERT, 2, "two")
    assert reading.names() == [(2, None, "two")]


def test_retention_has_passed(session: Callable[[], Session], reading: Reading) -> None:
    """A cursor older than what was removed is told so; one that goes along is not."""
    execute(INSERT, 1, "one")
    old = reading.cursor
    rotate_all(reading)
    assert execute("SELECT count(*) FROM pgobserve.outbox") == [(0,)]
    reading.cursor = old

    assert reading.read().gap is GapReason.RETENTION


def rotate_all(reading: Reading) -> None:
    """Rotate until everything that is there now is gone, and read at each step."""
    steps: list[str] = []
    while steps.count("advanced") < 4:
        row = reading.connection.execute("SELECT pgobserve.outbox_rotate(0)").fetchone()
        assert row is not None
        steps.append(row[0])
        assert len(steps) < 50, steps
        assert reading.read().gap is None


def test_open_while_rotated(session: Callable[[], Session], reading: Reading) -> None:
    """What a transaction writes that is open over rotations is found, or a reset tells of it."""
    one = session()
    one.run(INSERT, 1, "one")
    for _ in range(10):
        reading.connection.execute("SELECT pgobserve.outbox_rotate(0)")
    one.commit()
    page = reading.read()

    assert page.gap is None
    assert len(page.entries) == 1


def test_lost(session: Callable[[], Session], reading: Reading) -> None:
    """Where a transaction could not write, readers that had not seen it are told, once."""
    open_meanwhile = session()
    open_meanwhile.run(INSERT, 1, "open")
    execute("SELECT setval('pgobserve.outbox_gate', 3)")
    assert reading.read().gap is None
    execute(INSERT, 2, "not written")
    execute("SELECT setval('pgobserve.outbox_gate', 0)")
    assert reading.read().gap is GapReason.NOT_WRITTEN
    execute(INSERT, 3, "written")
    assert reading.names() == [(3, None, "written")]
    # Only the greatest id is remembered, so an older one may have been concerned, too.
    open_meanwhile.commit()

    assert reading.read().gap is GapReason.NOT_WRITTEN
    assert reading.read().gap is None


def test_cursor_of_another_server(reading: Reading) -> None:
    """A cursor that has seen what this server has not is told to begin again."""
    now = reading.cursor.seen.xmax
    reading.cursor = Cursor(Snapshot(now + 1000, now + 1000, frozenset()))

    assert reading.read().gap is GapReason.OTHER_SERVER


def test_plan_uses_the_index(reading: Reading) -> None:
    """However many rows there are, those to be read come from the index on transaction ids."""
    for rows in (0, 50_000):
        execute(
            "INSERT INTO pgobserve.outbox (slot, xid, label, op, at) "
            "SELECT mod(n, 3), (n + 3)::text::xid8, 'other.table', 'U', now() FROM generate_series(1, %s) n",
            rows,
        )
        execute(INSERT, rows + 1, "one")
        wanted = outbox_page.parameters(reading.cursor, images=("project.item",))
        for prepare in (False, True):
            cursor = reading.connection.cursor()
            plan = "\n".join(
                row[0]
                for row in cursor.execute(
                    sql.SQL("EXPLAIN (COSTS OFF) ") + qualified(outbox_page.QUERY, ALONE),
                    wanted,
                    prepare=prepare,
                )
            )
            assert plan.count("Index Cond: ((xid >=") == 3, plan
            for slot in range(3):
                assert f"outbox_{slot}_xid_idx" in plan, plan
            assert "Seq Scan on outbox_0" not in plan


def test_nothing_is_lost_in_any_order(session: Callable[[], Session], reading: Reading) -> None:
    """Of transactions that overlap at random each change is found exactly once, in order."""
    draw = random.Random(5)
    sessions = [session() for _ in range(5)]
    busy: dict[int, list[int]] = {n: [] for n in range(5)}
    committed: list[int] = []
    found: list[int] = []
    for number in range(300):
        who = draw.randrange(5)
        if busy[who] and draw.random() < 0.4:
            if draw.random() < 0.2:
                sessions[who].rollback()
            else:
                sessions[who].commit()
                committed += busy[who]
            busy[who] = []
        else:
            sessions[who].run(INSERT, number, "x")
            busy[who].append(number)
        if draw.random() < 0.3:
            found += [key for key, _, _ in reading.names()]
    for each in sessions:
        each.rollback()
    found += [key for key, _, _ in reading.names()]

    assert len(committed) > 100
    assert sorted(found) == sorted(committed)
