"""The state of a list: which subscription holds what of it, and what must be read."""

from __future__ import annotations

from typing import Any

import pytest

from pgobserve.deliver.send_queue import SendQueue
from pgobserve.hub.list_deliveries import admit
from pgobserve.hub.list_state import ListRow, ListState
from pgobserve.hub.outcome import ABSENT, FrameAction, Outcome, Refusal, View
from pgobserve.hub.snapshot import Snapshot
from pgobserve.hub.subscriptions import ListSnapshot, ListSubscription, SnapshotRow
from tests.unit.hub.lists import deliver

A, B = View.of("a"), View.of("b")
FAILED = Refusal(500, ("It failed.",))


def at(xid: int) -> Snapshot:
    """Return a snapshot that sees all before a transaction."""
    return Snapshot(xid, xid, frozenset())


class Client:
    """A subscription, whose frames are read when the test says so."""

    def __init__(self, roster: ListState, *rows: tuple[Any, Outcome]) -> None:
        self.send_queue = SendQueue(lambda: None)
        self.watch = ListSubscription(self.send_queue, 1, None, lambda listed: None)
        self.roster = roster
        self.bodies = [row.view.body for row in admit(roster, self.watch, rows)]

    def frames(self) -> list[tuple[FrameAction, Any]]:
        """Read all frames: what happened, and to which row."""
        taken = []
        while (item := self.send_queue.take()) is not None:
            taken.append((item[2], item[0].key))
        return taken


@pytest.fixture
def roster() -> ListState:
    """A list of a row, as a load in which all before 10 was seen has found it."""
    roster = ListState("list")
    deliver(roster, 1, A, {}, [])
    roster.done_whole(at(10))
    return roster


@pytest.fixture
def client(roster: ListState) -> Client:
    """One who has the list."""
    return Client(roster, (1, A))


def tell(client: Client, key: Any, outcome: Outcome, **options: Any) -> None:
    """Let all who have the list have what was found of a row."""
    roster = client.roster
    special = options.pop("special", {})
    deliver(roster, key, outcome, special, roster.audience, **options)


def test_pages() -> None:
    """A list is cut into pages, an empty one into one that is empty."""
    rows = [SnapshotRow(key, View.of(str(key))) for key in (1, 2, 3)]
    one, two, three = (f'"{row.view.etag}"' for row in rows)

    assert ListSnapshot(rows).cut(2, 200) == [
        ("1,2", '"1","2"', f"{one},{two}"),
        ("3", '"3"', three),
    ]
    assert ListSnapshot().cut(2, 200) == [("", "", "")]


def test_pages_of_long_rows() -> None:
    """No page is longer than it may be but with a single row."""

    def cut(*bodies: str) -> list[str]:
        rows = [SnapshotRow(key, View.of(body)) for key, body in enumerate(bodies)]
        # Besides its body, a row takes a key and an etag, of 24 characters with the commas.
        return [page.results for page in ListSnapshot(rows).cut(9, 54)]

    assert cut("aa", "bb", "cc") == ["aa,bb", "cc"]
    assert cut("a", "b" * 9, "c") == ["a", "b" * 9, "c"]
    assert cut("a" * 99) == ["a" * 99]


def test_admitted(client: Client, roster: ListState) -> None:
    """Who is admitted gets the rows, and is told nothing of them."""
    assert client.bodies == ["a"]
    assert client.frames() == []
    assert roster.audience == (client.watch,)
    assert roster.holdings(client.watch) == {1: A.digest}


def test_enter_change_leave(client: Client) -> None:
    """A row is created, updated, deleted; what is as it was is not told."""
    for outcome in (ABSENT, A, A, B, ABSENT, ABSENT):
        tell(client, 2, outcome)
        client.send_queue._stir()
        seen = client.frames()
        assert len(seen) <= 1
    tell(client, 1, B)
    tell(client, 2, A)

    assert client.frames() == [("update", 1), ("create", 2)]


def test_exception(client: Client, roster: ListState) -> None:
    """Who sees a row as others don't has an exception, as long as it is one."""
    other = Client(roster, (1, A))
    tell(client, 1, B, special={other.watch: A})
    assert (client.frames(), other.frames()) == ([("update", 1)], [])
    assert other.watch.special == {1: A.digest}

    tell(client, 1, B)
    assert (client.frames(), other.frames()) == ([], [("update", 1)])
    assert other.watch.special == {}


@pytest.mark.parametrize(
    ("waiting", "now", "frames"),
    [
        (A, ABSENT, []),
        (A, B, [("create", 2)]),
        (FAILED, ABSENT, []),
    ],
)
def test_conflated(client: Client, waiting: Outcome, now: Outcome, frames: Any) -> None:
    """What a client was never sent he is not told the end of; nor does it wait."""
    tell(client, 2, waiting)
    tell(client, 2, now)

    assert len(client.send_queue) == len(frames)
    assert client.frames() == frames


@pytest.mark.parametrize(("now", "frames"), [(B, [("create", 2)]), (ABSENT, [])])
def test_failed_before_it_was_sent(client: Client, now: Outcome, frames: Any) -> None:
    """A row that failed while its create was waiting is one that the client has not."""
    tell(client, 2, A)
    tell(client, 2, FAILED)
    assert client.frames() == [("error", 2)]
    tell(client, 2, now)

    assert client.frames() == frames


@pytest.mark.parametrize(("now", "frames"), [(B, [("update", 1)]), (ABSENT, [("delete", 1)])])
@pytest.mark.parametrize("read", [True, False])
def test_failed_before_its_end_was_sent(
    client: Client, now: Outcome, frames: Any, read: bool
) -> None:
    """A row that failed while its delete was waiting is one that the client has."""
    tell(client, 1, ABSENT)
    tell(client, 1, FAILED)
    if read:
        assert client.frames() == [("error", 1)]
    tell(client, 1, now)

    assert client.frames() == frames


def test_failed_on_the_way_to_another_list(client: Client, roster: ListState) -> None:
    """What a client really has, who waits for another list, is what he gets there from."""
    tell(client, 2, A)
    tell(client, 2, FAILED)
    client.watch.has, client.watch.special = roster.holdings(client.watch), {}
    roster.leave(client.watch)
    assert client.frames() == [("error", 2)]
    other = ListState("other")
    deliver(other, 2, B, {}, [])
    admit(other, client.watch, [(2, B)])

    assert sorted(client.frames()) == [("create", 2), ("delete", 1)]


def test_failed_is_told_once(client: Client) -> None:
    """An error that is found again by a load of everything is not told again."""
    tell(client, 1, FAILED)
    tell(client, 1, FAILED, again=True)
    assert client.frames() == [("error", 1)]
    tell(client, 1, FAILED, again=True)
    assert client.frames() == []
    tell(client, 1, A)
    assert client.frames() == [("update", 1)]


def test_comes_back(roster: ListState) -> None:
    """Who has some of it already is told what differs, and gets no list."""
    watch = ListSubscription(SendQueue(lambda: None), 1, None, lambda listed: None)
    watch.has = {1: A.digest, 2: B.digest, 3: None}
    bodies = admit(roster, watch, [(1, A), (2, A)])

    told = []
    while (item := watch.send_queue.take()) is not None:
        told.append((item[2], item[0].key))
    assert bodies == []
    assert told == [("update", 2), ("delete", 3)]


def test_rest(client: Client, roster: ListState) -> None:
    """Rows that are not found any more are those of everybody, exceptions included."""
    tell(client, 2, ABSENT, special={client.watch: A})

    assert roster.missing([1]) == {2}
    assert roster.missing([]) == {1, 2}


def test_after_leaving(client: Client, roster: ListState) -> None:
    """Who has left is told nothing, also by a load that had begun before."""
    audience = roster.audience
    roster.leave(client.watch)
    deliver(roster, 1, B, {}, audience)

    assert client.frames() == []
    assert not roster.wanted


# What must be read


def test_old_news(roster: ListState) -> None:
    """A change that the list's load has seen is no news; one that it has not is."""
    roster.mark([1], 9)
    assert not roster.needs_reading
    roster.mark([1, 2], 10)

    assert roster.take(10) == [ListRow(roster, 1), ListRow(roster, 2)]


def test_old_news_during_a_load(roster: ListState) -> None:
    """What is heard during a load is judged by that load's snapshot when it has ended."""
    roster.mark_whole(None)
    roster.take_whole()
    roster.mark([1], 5)
    roster.mark([2], 25)
    roster.done_whole(at(20))

    assert roster.take(10) == [ListRow(roster, 2)]


def test_limit(roster: ListState) -> None:
    """Rows are taken up to a limit."""
    roster.mark([1, 2, 3], 10)

    assert [len(roster.take(2)), len(roster.take(2))] == [2, 1]


def test_failed_load(roster: ListState) -> None:
    """A row whose load failed is read again, whatever it has seen; so is a list."""
    roster.mark([1], 10)
    (entry,) = roster.take(10)
    roster.done(entry.key, failed=True)
    assert roster.take(10) == [entry]
    roster.done(entry.key, failed=False)
    assert not roster.needs_reading
    roster.take_whole()
    roster.done_whole(None)

    assert roster.needs_whole(10)


def test_whole(roster: ListState) -> None:
    """The list is read as a whole if anything may have changed, but not for old news."""
    roster.mark_whole(9)
    assert not roster.needs_whole(10)
    roster.mark_whole(10)
    assert roster.needs_whole(10)
    roster.take_whole()
    assert not roster.needs_reading
    roster.done_whole(at(11))
    roster.mark_whole(None)
    assert roster.needs_whole(10)


def test_many(roster: ListState) -> None:
    """More changed rows than are read at a time, and than there are, are read as a whole."""
    roster.mark(range(5), 10)

    assert not roster.needs_whole(5)
    assert roster.needs_whole(4)


def test_number() -> None:
    """What can't be read by row is read as a whole."""
    roster = ListState("list", single=True)
    roster.mark([1], 5)

    assert roster.needs_whole(10)


def test_unread(client: Client, roster: ListState) -> None:
    """Of a row whose query failed they hear who have it: it may be none of the others'."""
    other = Client(roster, (1, A))
    tell(client, 2, A, special={other.watch: ABSENT})
    client.frames()
    for key in (2, 3):
        deliver(roster, key, FAILED, {}, roster.audience, unread=True)
    assert (client.frames(), other.frames()) == ([("error", 2)], [])
    tell(client, 2, A)
    tell(client, 3, A)

    assert client.frames() == [("update", 2), ("create", 3)]
    assert other.frames() == [("create", 2), ("create", 3)]


def test_gathering(roster: ListState) -> None:
    """Newcomers that gather make no read due; rows that change meanwhile are read."""
    roster.gathering = True
    roster.newcomers[ListSubscription(SendQueue(lambda: None), 1, None, lambda listed: None)] = None
    assert not roster.needs_reading

    roster.mark([1], 20)
    assert roster.needs_reading
    assert not roster.needs_whole(10)
    assert roster.take(10) == [ListRow(roster, 1)]
    roster.done(1, failed=False)
    roster.gathering = False

    assert roster.needs_whole(10)
