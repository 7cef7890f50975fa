"""The state of a list: who has what of it, what must be read, and what tokens may say."""

from __future__ import annotations

from typing import Any

import pytest

from pgobserve.hub.list_admission import admit
from pgobserve.hub.list_state import ListRow, ListState
from pgobserve.hub.list_subscription import ListItemUpdate, ListSnapshot, ListSubscription
from pgobserve.hub.send_queue import (
    ABSENT,
    FrameAction,
    Outcome,
    Refusal,
    SendQueue,
    View,
)
from pgobserve.hub.snapshot import Snapshot

A, B = View.of("a"), View.of("b")
FAILED = Refusal(500, ("It failed.",))


def at(xid: int) -> Snapshot:
    """Return a snapshot that sees all before a transaction."""
    return Snapshot(xid, xid, frozenset())


class Client:
    """A subscription, whose frames are read when the test says so."""

    def __init__(self, roster: ListState, *rows: tuple[Any, Outcome]) -> None:
        self.mailbox = SendQueue(lambda: None)
        self.watch = ListSubscription(self.mailbox, 1, None, lambda listed, snapshot: None)
        self.roster = roster
        self.bodies = admit(roster, self.watch, rows, at(10))

    def frames(self) -> list[tuple[FrameAction, Any]]:
        """Read all frames: what happened, and to which row."""
        taken = []
        while (item := self.mailbox.take()) is not None:
            taken.append((item[3], item[0].key))
        return taken

    def token(self) -> Snapshot | None:
        """Return the token of a frame that is read now."""
        return ListItemUpdate(self.watch, 1, None).token(at(99))


@pytest.fixture
def roster() -> ListState:
    """A list of a row, as a load in which all before 10 was seen has found it."""
    roster = ListState("list")
    roster.tell(1, A, {}, at(10), [])
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
    roster.tell(key, outcome, special, at(20), roster.audience, **options)


def test_pages() -> None:
    """A list is cut into pages, an empty one into one that is empty."""
    assert ListSnapshot(["1", "2", "3"]).cut(2, 100) == ["1,2", "3"]
    assert ListSnapshot().cut(2, 100) == [""]


def test_pages_of_long_rows() -> None:
    """No page is longer than it may be but with a single row."""
    assert ListSnapshot(["aa", "bb", "cc"]).cut(9, 6) == ["aa,bb", "cc"]
    assert ListSnapshot(["a", "b" * 9, "c"]).cut(9, 6) == ["a", "b" * 9, "c"]
    assert ListSnapshot(["a" * 9]).cut(9, 6) == ["a" * 9]


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
        client.mailbox._stir()
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

    assert len(client.mailbox) == len(frames)
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
    other.tell(2, B, {}, at(30), [])
    admit(other, client.watch, [(2, B)], at(30))

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


def test_refused_no_more(client: Client, roster: ListState) -> None:
    """One who comes to another list with a row that was refused has it refused there no more."""
    tell(client, 1, B, special={client.watch: FAILED})
    client.watch.has, client.watch.special = roster.holdings(client.watch), {}
    roster.leave(client.watch)
    other = ListState("other")
    admit(other, client.watch, [], at(30))

    assert client.watch.refused == set()


def test_comes_back(roster: ListState) -> None:
    """Who has some of it already is told what differs, and gets no list."""
    watch = ListSubscription(SendQueue(lambda: None), 1, None, lambda listed, snapshot: None)
    watch.has = {1: A.digest, 2: B.digest, 3: None}
    bodies = admit(roster, watch, [(1, A), (2, A)], at(10))

    told = []
    while (item := watch.mailbox.take()) is not None:
        told.append((item[3], item[0].key))
    assert bodies == []
    assert told == [("update", 2), ("delete", 3)]


def test_rest(client: Client, roster: ListState) -> None:
    """Rows that are not found any more are those of everybody, exceptions included."""
    tell(client, 2, ABSENT, special={client.watch: A})

    assert roster.rest([1]) == {2}
    assert roster.rest([]) == {1, 2}


def test_after_leaving(client: Client, roster: ListState) -> None:
    """Who has left is told nothing, also by a load that had begun before."""
    audience = roster.audience
    roster.leave(client.watch)
    roster.tell(1, B, {}, at(20), audience)

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


# What tokens say


def test_token(client: Client, roster: ListState) -> None:
    """A token is what was confirmed, not the snapshot in which the frame was read."""
    assert client.token() == at(10)
    roster.confirm(at(15))
    assert client.token() == at(15)
    assert client.watch.told_of == "list"


def test_token_while_more_waits(client: Client, roster: ListState) -> None:
    """As long as there is more to be told the token stays what it was."""
    assert client.token() == at(10)
    tell(client, 2, A)
    roster.confirm(at(15))
    assert client.token() == at(10)
    client.frames()
    assert client.token() == at(15)


@pytest.mark.parametrize("only", [True, False])
def test_token_after_a_failure(client: Client, roster: ListState, only: bool) -> None:
    """As long as a client has an old state of a row the token stays what it was."""
    tell(client, 1, A if only else FAILED, special={client.watch: FAILED} if only else {})
    client.frames()
    roster.confirm(at(15))
    assert client.token() == at(10)
    tell(client, 1, A)
    client.frames()

    assert client.token() == at(15)


def test_confirmed_while_dirty(client: Client, roster: ListState) -> None:
    """What is confirmed while rows are to be read is said when all of them were told."""
    roster.mark([1, 2], 12)
    roster.confirm(at(15))
    (first,) = roster.take(1)
    roster.done(first.key, failed=False)
    assert roster.base == at(10)
    (second,) = roster.take(1)
    assert roster.base == at(10)
    roster.done(second.key, failed=False)

    assert roster.base == at(15)


def test_confirmed_while_loading(roster: ListState) -> None:
    """What is confirmed during a load is not said when that ends: it may have read before."""
    roster.mark([1], 12)
    (entry,) = roster.take(1)
    roster.confirm(at(15))
    roster.done(entry.key, failed=False)

    assert roster.base == at(10)


def test_confirmed_and_failed(roster: ListState) -> None:
    """What is confirmed is not said when a load of it failed, but when it is repeated."""
    roster.mark([1], 12)
    roster.confirm(at(15))
    (entry,) = roster.take(1)
    roster.done(entry.key, failed=True)
    assert roster.base == at(10)
    (entry,) = roster.take(1)
    roster.done(entry.key, failed=False)

    assert roster.base in (at(10), at(15))


def test_unread(client: Client, roster: ListState) -> None:
    """Of a row whose query failed they hear who have it: it may be none of the others'."""
    other = Client(roster, (1, A))
    tell(client, 2, A, special={other.watch: ABSENT})
    client.frames()
    for key in (2, 3):
        for _ in roster.telling(key, FAILED, {}, at(20), roster.audience, unread=True):
            pass
    assert (client.frames(), other.frames()) == ([("error", 2)], [])
    roster.confirm(at(15))
    assert client.token() == at(10)
    tell(client, 2, A)
    tell(client, 3, A)

    assert client.frames() == [("update", 2), ("create", 3)]
    assert other.frames() == [("create", 2), ("create", 3)]
