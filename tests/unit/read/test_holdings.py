"""What a returning client says that it holds, and what it is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgobserve.deliver.send_queue import SendQueue
from pgobserve.hub.list_deliveries import admit, admit_returning, differences
from pgobserve.hub.list_state import ListState
from pgobserve.hub.load_requests import FAILED
from pgobserve.hub.outcome import ABSENT, UNKNOWN, UNREAD, View
from pgobserve.hub.subscriptions import ListSubscription
from pgobserve.read.list_load import Holdings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgobserve.hub.outcome import Outcome

ONE, TWO = View.of('{"id":1}'), View.of('{"id":2}')


def frames(have: Mapping[str, str], *rows: tuple[Any, Outcome]) -> list[tuple[str, Any]]:
    """Let a client come back; return what happened, and to which row."""
    watch = ListSubscription(SendQueue(lambda: None), 1, None, lambda listed: None)
    watch.has = Holdings().of(have)
    admit(ListState("list"), watch, rows, claimed=True)
    taken = []
    while (item := watch.send_queue.take()) is not None:
        taken.append((item[2], item[0].key))
    return taken


def test_digests_by_key() -> None:
    """Etags become digests, in the client's order."""
    held = Holdings().of({"9": TWO.etag, "1": ONE.etag})

    assert list(held.items()) == [("9", TWO.digest), ("1", ONE.digest)]


def test_no_etags() -> None:
    """What is no etag stands for a state that is not known."""
    texts = ["", "x", "3f", "é", ONE.etag + "00", ONE.etag[:-1], "0x" + ONE.etag]

    assert set(Holdings().of(dict(zip("abcdefg", texts, strict=True))).values()) == {UNKNOWN}


def test_shared_by_those_who_hold_the_same() -> None:
    """Clients that hold the same are read once."""
    holdings = Holdings()

    first, second = holdings.of({"1": ONE.etag}), holdings.of({"1": ONE.etag})
    other = holdings.of({"1": TWO.etag})

    assert first is second
    assert other == {"1": TWO.digest}


def test_answer() -> None:
    """The client receives what differs: rows in the list's order, then what is gone in its own."""
    have = {"9": "x", "1": ONE.etag, "2": ONE.etag, "8": "x"}

    told = frames(have, ("3", TWO), ("2", TWO), ("1", ONE))

    assert told == [("create", "3"), ("update", "2"), ("delete", "9"), ("delete", "8")]


def test_hidden_as_missing() -> None:
    """A hidden row is answered as one that is not there: the same frames in the same places."""
    for have in ({"2": TWO.etag, "1": ONE.etag, "8": "x"}, {"8": "x", "1": "", "2": TWO.etag}):
        hidden = frames(have, ("1", ONE), ("2", ABSENT), ("3", ONE))

        assert hidden == frames(have, ("1", ONE), ("3", ONE))
        assert ("delete", "2") in hidden


def test_hidden_from_all_as_missing() -> None:
    """The same where all see the same rows."""
    watch = ListSubscription(SendQueue(lambda: None), 1, None, lambda listed: None)
    held = Holdings().of({"2": TWO.etag, "8": "x"})
    admit_returning(ListState("list"), watch, differences(held, {"1": ONE}))

    taken = [watch.send_queue.take() for _ in range(3)]
    assert [(item[2], item[0].key) for item in taken if item] == [
        ("create", "1"),
        ("delete", "2"),
        ("delete", "8"),
    ]


def test_not_known_whether_it_may_be_seen() -> None:
    """A claim opens no row: one that may be hidden counts as missing, one that may not fails."""
    have = {"1": ONE.etag, "2": ONE.etag}

    assert frames(have, ("1", UNREAD), ("2", FAILED)) == [("error", "2"), ("delete", "1")]
