"""
Subscriptions to rows and to lists, and what frames are about.

The client of a subscription to a list receives the list first, and then its changed rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pgobserve.hub.outcome import UNKNOWN, Refusal, step, without

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from pgobserve.hub.outcome import FrameAction, Outcome, View

    #: Digests by key.
    Shown = dict[Hashable, bytes | None]


class FrameQueue(Protocol):
    """The queue of one socket's frames; see :class:`~pgobserve.deliver.send_queue.SendQueue`."""

    def put(self, watch: Deliverable, outcome: Outcome, kind: FrameAction | None = None, /) -> None:
        """Queue the latest state of a row."""

    def forget(self, watch: Deliverable, /) -> None:
        """Drop what waits for an ended subscription."""

    def sweep(self) -> None:
        """Drop what waits for any ended subscription."""


@dataclass(slots=True, eq=False)
class RowSubscription:
    """
    One subscription of one socket to one row.

    Attributes:
        request_id: The client's name for the subscription; any JSON value.
        context: Opaque here. :func:`~pgobserve.cohorts.subscription_context.context_of` returns it
            typed.
        shown: Digest of the state that the client received last; see :func:`~pgobserve.hub.outcome.step`.
        active: False once it has ended: the client receives no more frames.
        on_started: Called once, with the first outcome, in place of a frame.
    """

    send_queue: FrameQueue
    key: Hashable
    request_id: object
    context: object
    on_started: Callable[[Outcome], None] | None
    shown: bytes | None = UNKNOWN
    active: bool = True

    def turn(self, outcome: Outcome) -> FrameAction | None:
        """Return the frame that leads from what was shown to the outcome, and record it as shown."""
        self.shown, kind = step(self.shown, outcome)
        return kind

    def unsent(self, kind: FrameAction) -> None:
        """Record that no frame can hold the row: the client has an old state of it, or none."""
        self.shown = without(kind)

    def withdrawn(self) -> None:
        """Record that a waiting state is not sent: the client keeps what it was shown before."""


class SnapshotRow(NamedTuple):
    """
    A row of a list as a client receives it.

    Attributes:
        key: The row's identity in the list.
        view: What is shown of it.
    """

    key: Hashable
    view: View


class ListPage(NamedTuple):
    """
    Some rows of a list, each part as a JSON array without brackets.

    Attributes:
        etags: The digests of what is shown.
    """

    results: str
    keys: str
    etags: str


@dataclass(slots=True)
class ListSnapshot:
    """
    A list as a client receives it; shared by clients that see the same.

    Attributes:
        resumed: Whether the client holds some of the list, so that frames with the difference follow.
    """

    rows: Sequence[SnapshotRow] = ()
    resumed: bool = False
    pages: dict[tuple[int, int], list[ListPage]] = field(default_factory=dict)

    def cut(self, rows: int, length: int) -> list[ListPage]:
        """
        Return the rows in pages, at least one.

        Args:
            rows: Maximum number of rows in a page.
            length: Maximum length of a page. A longer row has a page of its own.
        """
        if (rows, length) not in self.pages:
            self.pages[rows, length] = list(self._cut(rows, length))
        return self.pages[rows, length]

    def _cut(self, rows: int, length: int) -> Iterator[ListPage]:
        page: list[tuple[str, str, str]] = []
        room = length
        for row in self.rows:
            parts = row.view.body or "null", encoded(row.key), f'"{row.view.etag}"'
            size = sum(map(len, parts)) + len(parts)
            room -= size
            if page and (room < 0 or len(page) >= rows):
                yield ListPage(*map(",".join, zip(*page, strict=True)))
                page, room = [], length - size
            page.append(parts)
        yield ListPage(*map(",".join, zip(*page, strict=True))) if page else ListPage("", "", "")


def encoded(key: Hashable) -> str:
    """Return the key of a row as JSON; ``null`` for none."""
    return "null" if key is None else json.dumps(str(key))


class HeldList(Protocol):
    """The list that a subscription holds; see :class:`~pgobserve.hub.list_state.ListState`."""

    def correct(self, watch: ListSubscription, key: Hashable, digest: bytes | None, /) -> None:
        """Record what a client really holds of a row."""


@dataclass(slots=True, eq=False)
class ListSubscription:
    """
    One subscription of one socket to a list.

    Attributes:
        request_id: The client's name for the subscription; any JSON value.
        context: Opaque here, as in :class:`~pgobserve.hub.subscriptions.RowSubscription`.
        on_started: Called once, with the list or with a refusal.
        have: The etags that a returning client claims to hold, by the text of the keys. None for a
            client that receives the list with the reply.
        has: What the client holds while its subscription waits for a list: a returning client, or one
            that moves from another list. None for a client that receives the list with the reply, and
            once ``roster`` knows what the client holds.
        roster: The list, once the client holds it.
        special: Digests of rows that look different for this client.
        failing: Whether the client has received an error for the whole list.
        active: False once it has ended: the client receives no more frames.
    """

    send_queue: FrameQueue
    request_id: object
    context: object
    on_started: Callable[[ListSnapshot | Refusal], None] | None
    have: Mapping[str, str] | None = None
    has: Shown | None = None
    roster: HeldList | None = None
    special: Shown = field(default_factory=dict)
    failing: bool = False
    active: bool = True

    def put(
        self,
        key: Hashable,
        had: bytes | None,
        outcome: Outcome,
        kind: FrameAction | None = None,
    ) -> None:
        """Queue a row. ``kind`` is the frame that leads from ``had`` to the outcome, if known."""
        self.send_queue.put(ListItemUpdate(self, key, had), outcome, kind)

    def correct(self, key: Hashable, shown: bytes | None) -> None:
        """
        Record what the client really holds of a row.

        The list counts a row as held once it is queued, but a later state may replace it unsent.
        """
        if self.roster is not None:
            self.roster.correct(self, key, shown)
        elif self.has is not None:
            self.has[key] = shown


class ListItemUpdate:
    """
    A changed row of a subscription to a list.

    Equal to any other of the same row and subscription: the queue keeps the first, which records what the
    client really holds.
    """

    __slots__ = ("key", "shown", "watch")

    def __init__(self, watch: ListSubscription, key: Hashable, shown: bytes | None) -> None:
        self.watch = watch
        self.key = key
        self.shown = shown

    def __hash__(self) -> int:
        return hash((self.watch, self.key))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ListItemUpdate)
            and self.watch is other.watch
            and self.key == other.key
        )

    @property
    def active(self) -> bool:
        """False once the subscription has ended."""
        return self.watch.active

    @property
    def request_id(self) -> object:
        """The client's name for the subscription."""
        return self.watch.request_id

    @property
    def context(self) -> object:
        """The subscription's context; opaque here."""
        return self.watch.context

    def turn(self, outcome: Outcome) -> FrameAction | None:
        """Return the frame that leads from what was shown to the outcome, and record it as shown."""
        self.shown, kind = step(self.shown, outcome)
        if isinstance(outcome, Refusal) and self.key is not None:
            self.watch.correct(self.key, self.shown)
        return kind

    def unsent(self, kind: FrameAction) -> None:
        """Record that no frame can hold the row: the client has an old state of it, or none."""
        self.shown = without(kind)
        self.watch.correct(self.key, self.shown)

    def withdrawn(self) -> None:
        """Record that a waiting state is not sent: the client keeps what it was shown before."""
        self.watch.correct(self.key, self.shown)


Subscription = RowSubscription | ListSubscription

#: What a frame is about.
Deliverable = RowSubscription | ListItemUpdate
