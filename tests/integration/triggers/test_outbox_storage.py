"""The outbox rotates: it loses no young row, keeps no old one, and blocks no session."""

from __future__ import annotations

import contextlib
import random
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connection

from pgobserve.triggers.server import outbox_storage
from pgobserve.wire import ALONE
from tests.integration.triggers.conftest import parameters
from tests.project.shapes import Plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RETENTION = 3600.0


@pytest.fixture
def transport() -> str:
    """Everything here goes to the outbox."""
    return "outbox"


@pytest.fixture(autouse=True)
def plain(make: Callable[..., None], install: Callable[..., Any]) -> None:
    """A plain table whose changes go to the outbox."""
    make(Plain)
    install(Plain)


@pytest.fixture
def later(run: Callable[..., Any]) -> Callable[[float], None]:
    """Let time pass: all that the outbox remembers is so much longer ago."""

    def later(seconds: float) -> None:
        run(
            "UPDATE pgobserve.outbox_state SET rotated_at = rotated_at - make_interval(secs => %s), "
            "quiet_at = ARRAY(SELECT t - make_interval(secs => %s) FROM unnest(quiet_at) "
            "WITH ORDINALITY u(t, n) ORDER BY n)",
            seconds,
            seconds,
        )

    return later


def _rotate(retention: float = RETENTION) -> list[str]:
    return outbox_storage.rotate(connection, ALONE, retention)


def _slots(run: Callable[..., Any]) -> list[int]:
    """Return the number of rows in each slot."""
    return [run(f"SELECT count(*) FROM pgobserve.outbox_{slot}")[0][0] for slot in range(3)]


def _horizon(run: Callable[..., Any]) -> str:
    return str(run("SELECT horizon::text FROM pgobserve.outbox_state")[0][0])


def test_not_due(run: Callable[..., Any]) -> None:
    """Before half the retention has passed nothing happens."""
    Plain.objects.create(name="a")

    assert _rotate() == ["early"]
    assert _slots(run) == [1, 0, 0]


def test_goes_round(run: Callable[..., Any], later: Callable[[float], None]) -> None:
    """Each half retention it goes on; a slot is emptied when it is wanted again."""
    before = _horizon(run)
    for number in range(3):
        Plain.objects.create(name=str(number))
        later(RETENTION / 2)
        steps = _rotate()
        assert steps[-1] == "early"
        assert "advanced" in steps
        if number < 2:
            assert _horizon(run) == before
    # The first slot is written again, and has lost what is one and a half retentions old.
    assert _slots(run) == [0, 1, 1]
    assert outbox_storage.status(connection, ALONE).slot == 0
    assert _horizon(run) != before


def test_row_stays_as_long_as_promised(
    run: Callable[..., Any], later: Callable[[float], None]
) -> None:
    """A row written just before its slot is left is there for a whole retention."""
    later(RETENTION / 2)
    Plain.objects.create(name="a")
    _rotate()
    later(RETENTION / 2)
    _rotate()
    later(RETENTION / 2 - 60)

    assert _rotate() == ["early"]
    assert _slots(run) == [1, 0, 0]
    later(61)
    assert "emptied" in _rotate()
    assert _slots(run) == [0, 0, 0]


def test_horizon(run: Callable[..., Any], later: Callable[[float], None]) -> None:
    """What was emptied is visible in the horizon; a place since then is good, an older one is not."""
    ((old,),) = run("SELECT pg_current_snapshot()::text")
    Plain.objects.create(name="a")
    ((xid,),) = run("SELECT xid::text FROM pgobserve.outbox")
    later(RETENTION / 2)
    _rotate()
    ((new,),) = run("SELECT pg_current_snapshot()::text")
    for _ in range(2):
        Plain.objects.create(name="b")
        later(RETENTION / 2)
        _rotate()
    horizon = _horizon(run)

    def is_whole(place: str) -> bool:
        ((whole,),) = run(
            "SELECT pg_snapshot_xmax(c) >= pg_snapshot_xmax(h) AND NOT EXISTS (SELECT FROM "
            "pg_snapshot_xip(c) x WHERE pg_visible_in_snapshot(x, h)) "
            "FROM (SELECT %s::pg_snapshot c, %s::pg_snapshot h) s",
            place,
            horizon,
        )
        return bool(whole)

    assert run("SELECT pg_visible_in_snapshot(%s::xid8, %s::pg_snapshot)", xid, horizon) == [
        (True,)
    ]
    assert is_whole(new)
    assert not is_whole(old)


def test_open_transaction(run: Callable[..., Any], later: Callable[[float], None]) -> None:
    """A slot is kept for a retention from when its last writer ended, however long that took."""
    with contextlib.closing(psycopg.connect(**parameters())) as writer:
        writer.execute("INSERT INTO project_plain VALUES (1, '', 0)")
        for _ in range(2):
            later(RETENTION)
            _rotate()
        later(RETENTION * 10)
        assert _rotate()[-1] == "busy"
        writer.execute("UPDATE project_plain SET rank = 1")  # does not wait
        writer.commit()
    assert _slots(run) == [1, 0, 1]

    assert "quiet" in _rotate()
    later(RETENTION - 60)
    assert _rotate() == ["early"]
    later(61)
    assert "emptied" in _rotate()
    assert _slots(run)[0] == 0


def test_late_writer(run: Callable[..., Any], later: Callable[[float], None]) -> None:
    """What a writer puts into a slot that was left long ago is not emptied unseen."""
    Plain.objects.create(name="a")
    for _ in range(2):
        later(RETENTION)
        _rotate()
    run(
        "INSERT INTO pgobserve.outbox_0 SELECT 0, pg_current_xact_id(), label, op, keys, old, new, at "
        "FROM pgobserve.outbox_0 LIMIT 1"
    )
    later(RETENTION)

    assert _rotate() == ["quiet", "early"]
    assert _slots(run)[0] == 2
    later(RETENTION)
    assert "emptied" in _rotate()


def test_reader_in_a_slot(run: Callable[..., Any], later: Callable[[float], None]) -> None:
    """A slot that a session reads is skipped, and no session queues behind it."""
    Plain.objects.create(name="a")
    for _ in range(2):
        later(RETENTION)
        _rotate()
    later(RETENTION)
    with psycopg.connect(**parameters()) as reader:
        reader.execute("SELECT count(*) FROM pgobserve.outbox")
        assert _rotate() == ["busy"]
        assert run("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]

    assert "emptied" in _rotate()


def test_writers_never_wait(
    run: Callable[..., Any], writer: psycopg.Connection[Any], later: Callable[[float], None]
) -> None:
    """Whatever the rotation holds, and however long, writers go on."""
    warnings: list[str] = []
    writer.add_notice_handler(lambda d: warnings.append(str(d.message_primary)))
    writer.execute("SET lock_timeout = '100ms'")
    Plain.objects.create(name="a")
    for _ in range(6):
        later(RETENTION)
        with psycopg.connect(**parameters()) as maintainer:
            for _ in range(4):
                maintainer.execute("SELECT pgobserve.outbox_rotate(%s::float8)", [RETENTION])
                writer.execute("INSERT INTO project_plain (name, rank) VALUES ('b', 0)")
                writer.execute("UPDATE project_plain SET rank = rank + 1")

    assert warnings == []
    assert outbox_storage.status(connection, ALONE).slot != 0


def test_role_that_serves(run: Callable[..., Any], later: Callable[[float], None]) -> None:
    """A role that was given so much can read the outbox and rotate it, though it owns nothing."""
    run("CREATE ROLE server")
    try:
        run("GRANT USAGE ON SCHEMA pgobserve TO server")
        run("GRANT SELECT ON ALL TABLES IN SCHEMA pgobserve TO server")
        run("GRANT SELECT ON ALL SEQUENCES IN SCHEMA pgobserve TO server")
        run("GRANT EXECUTE ON FUNCTION pgobserve.outbox_rotate(float8) TO server")
        Plain.objects.create(name="a")
        later(RETENTION)
        run("SET ROLE server")
        assert "advanced" in _rotate()
        assert run("SELECT count(*) FROM pgobserve.outbox") == [(1,)]
        assert run("SELECT last_value FROM pgobserve.outbox_lost") == [(0,)]
    finally:
        run("RESET ROLE")
        run("DROP OWNED BY server")
        run("DROP ROLE server")


def test_rotation_rolled_back(run: Callable[..., Any], later: Callable[[float], None]) -> None:
    """A rotation whose transaction is rolled back at any step loses nothing that is too young."""
    Plain.objects.create(name="a")
    for number in range(12):
        later(RETENTION / 4)
        with psycopg.connect(**parameters()) as maintainer:
            maintainer.execute("SELECT pgobserve.outbox_rotate(%s::float8)", [RETENTION])
            maintainer.rollback()
        Plain.objects.create(name=str(number))
        if number % 3 == 0:
            _rotate()
        ((young,),) = run(
            "SELECT count(*) FROM pgobserve.outbox o, project_plain p "
            "WHERE (o.new->0->>'id')::bigint = p.id AND p.id > (SELECT max(id) - 3 FROM project_plain)"
        )
        assert young == min(3, number + 2)


def test_one_maintainer(run: Callable[..., Any], later: Callable[[float], None]) -> None:
    """Of two sessions that rotate, one does, and the other returns."""
    later(RETENTION)
    with psycopg.connect(**parameters()) as other:
        other.execute("SELECT pgobserve.outbox_rotate(%s::float8)", [RETENTION])
        assert _rotate() == ["elsewhere"]


def test_full_slot_opens_again(run: Callable[..., Any], later: Callable[[float], None]) -> None:
    """A closed outbox is open again with the next slot."""
    run("SELECT setval('pgobserve.outbox_gate', 3)")
    Plain.objects.create(name="lost")
    assert outbox_storage.status(connection, ALONE).is_full
    later(RETENTION)
    _rotate()
    Plain.objects.create(name="kept")

    assert not outbox_storage.status(connection, ALONE).is_full
    assert _slots(run) == [0, 1, 0]
    assert outbox_storage.status(connection, ALONE).has_lost


def test_idle(run: Callable[..., Any], later: Callable[[float], None]) -> None:
    """An outbox that nothing is written to goes round without being emptied."""

    def files() -> Any:
        return run(
            "SELECT relname, relfilenode FROM pg_class WHERE relname LIKE 'outbox%' ORDER BY 1"
        )

    before, horizon = files(), _horizon(run)
    for _ in range(5):
        later(RETENTION)
        _rotate()

    assert files() == before
    assert _horizon(run) == horizon


def test_order_of_slots(later: Callable[[float], None]) -> None:
    """It goes through the slots in a circle."""
    seen = []
    for _ in range(7):
        later(RETENTION)
        _rotate()
        seen.append(outbox_storage.status(connection, ALONE).slot)

    assert seen == [1, 2, 0, 1, 2, 0, 1]


class Reader(threading.Thread):
    """Reads as a reader does, by the snapshot it has seen; resets are counted."""

    QUERY = """
        SELECT s.now::text,
               pg_snapshot_xmax(s.seen) >= pg_snapshot_xmax(t.horizon) AND NOT EXISTS (
                 SELECT FROM pg_snapshot_xip(s.seen) x WHERE pg_visible_in_snapshot(x, t.horizon)),
               ARRAY(SELECT (e->>'id')::bigint FROM pgobserve.outbox o, json_array_elements(o.new) e
                      WHERE o.xid >= pg_snapshot_xmin(s.seen) AND NOT pg_visible_in_snapshot(o.xid, s.seen)
                        AND o.op = 'I')
          FROM (SELECT pg_current_snapshot() AS now, %s::pg_snapshot AS seen) s, pgobserve.outbox_state t
    """

    def __init__(self, done: threading.Event) -> None:
        super().__init__()
        self.done = done
        self.seen: list[int] = []
        self.resets = 0
        self.connection = psycopg.connect(**parameters(), autocommit=True)
        row = self.connection.execute("SELECT pg_current_snapshot()::text").fetchone()
        assert row is not None
        self.place = row[0]

    def run(self) -> None:
        with contextlib.closing(self.connection):
            while not self.done.is_set():
                self.read()
            self.read()

    def read(self) -> None:
        row = self.connection.execute(self.QUERY, [self.place]).fetchone()
        assert row is not None
        self.place, is_whole, found = row
        self.resets += not is_whole
        self.seen += found


def _write(number: int, committed: list[int], trouble: list[str]) -> None:
    chance = random.Random(number)
    with psycopg.connect(**parameters()) as writer:
        writer.add_notice_handler(lambda d: trouble.append(str(d.message_primary)))
        for step in range(250):
            keys = [number * 100_000 + step * 10 + each for each in range(chance.randint(1, 4))]
            for key in keys:
                writer.execute("INSERT INTO project_plain VALUES (%s, '', 0)", [key])
            writer.execute("UPDATE project_plain SET rank = rank + 1 WHERE id = %s", [keys[0]])
            if chance.random() < 0.1:
                writer.rollback()
            else:
                writer.commit()
                committed += keys


@pytest.fixture
def maintainer() -> Iterator[tuple[threading.Event, list[str]]]:
    """Rotate without a pause."""
    done, steps = threading.Event(), list[str]()

    def rotate() -> None:
        with psycopg.connect(**parameters(), autocommit=True) as each:
            while not done.is_set():
                row = each.execute("SELECT pgobserve.outbox_rotate(1.0)").fetchone()
                assert row is not None
                steps.append(row[0])

    thread = threading.Thread(target=rotate)
    thread.start()
    yield done, steps
    done.set()
    thread.join()


def test_under_load(maintainer: tuple[threading.Event, list[str]]) -> None:
    """During rotation under writers, a reader sees each committed row once, or a gap."""
    _, steps = maintainer
    reader = Reader(threading.Event())
    reader.start()
    trouble: list[str] = []
    committed: list[list[int]] = [[] for _ in range(6)]
    while steps.count("emptied") < 3 or steps.count("advanced") < 4:
        writers = [
            threading.Thread(target=_write, args=(len(committed) + n, each, trouble))
            for n, each in enumerate(committed[-6:])
        ]
        for each in writers:
            each.start()
        for each in writers:
            each.join()
        committed += [[] for _ in range(6)]
    reader.done.set()
    reader.join()

    written = sorted(key for keys in committed for key in keys)
    assert trouble == []
    assert len(reader.seen) == len(set(reader.seen))
    assert set(reader.seen) <= set(written)
    assert sorted(reader.seen) == written or reader.resets > 0
