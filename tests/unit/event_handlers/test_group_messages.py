"""Start points and request ids of a socket in a group."""

from __future__ import annotations

from typing import Any, cast

from pgobserve.event_handlers.group_messages import GroupMember, StartPoint
from pgobserve.hub.snapshot import Snapshot

SEEN = Snapshot.parse("10:20:15")


def make() -> GroupMember:
    return GroupMember(cast("Any", object()))


def test_what_is_visible_is_old_news() -> None:
    """A transaction that the snapshot sees is no news; one that it does not see is."""
    beginning = StartPoint(SEEN, 100.0)

    assert [xid for xid in (9, 14, 15, 19, 20) if beginning.is_before(xid, 99.0)] == [15, 20]


def test_an_id_that_is_given_again() -> None:
    """What was written later than the snapshot is news, though its transaction's id is visible."""
    assert StartPoint(SEEN, 100.0).is_before(9, 100.5)


def test_each_id_has_its_own_beginning() -> None:
    """Of two request ids, an event between their beginnings concerns the first."""
    member = make()
    assert member.add("first")
    member.start("first", StartPoint(Snapshot.parse("10:10:"), 1.0))
    assert member.add("second")
    assert not member.known.is_set()
    member.start("second", StartPoint(Snapshot.parse("20:20:"), 3.0))

    assert member.known.is_set()
    assert member.ids_for((12, 2.0)) == ["first"]
    assert member.ids_for((21, 4.0)) == ["first", "second"]
    assert member.ids_for() == ["first", "second"]


def test_subscribing_again_begins_nothing_anew() -> None:
    """The same request id is one subscription, which goes on."""
    member = make()
    member.add({"any": "JSON"})
    member.start({"any": "JSON"}, StartPoint(Snapshot.parse("10:10:"), 1.0))

    assert not member.add({"any": "JSON"})
    assert member.ids_for((12, 2.0)) == [{"any": "JSON"}]


def test_removes() -> None:
    """One request id can be removed, or all; nobody waits for what will never begin."""
    member = make()
    for name in (1, 2, 3):
        member.add(name)
    member.remove(2)
    assert [name for name, _ in member.ids] == [1, 3]

    member.remove(None)

    assert member.ids == []
    assert member.known.is_set()
