"""A subscription to a list, the rows of it that have news, and the list as it was at first."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pgobserve.hub.identity import key_text
from pgobserve.hub.outcome import Refusal, step, without
from pgobserve.hub.row_subscription import RowSubscription

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from pgobserve.hub.list_state import ListState
    from pgobserve.hub.outcome import FrameAction, Outcome, View
    from pgobserve.hub.row_subscription import FrameQueue

    #: Digests by key.
    Shown = dict[Hashable, bytes | None]


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
        results: The rows.
        keys: The text of their keys.
        etags: The digests of what is shown.
    """

    results: str
    keys: str
    etags: str


@dataclass(slots=True)
class ListSnapshot:
    """
    A list as one client sees it; shared with those who see the same.

    Attributes:
        rows: Its rows, in the list's order.
        resumed: The client holds some state of it; what differs comes by frames.
    """

    rows: Sequence[SnapshotRow] = ()
    resumed: bool = False
    pages: dict[tuple[int, int], list[ListPage]] = field(default_factory=dict)

    def cut(self, rows: int, length: int) -> list[ListPage]:
        """
        Return the rows in pages; at least one.

        Args:
            rows: How many a page has at most.
            length: Characters that a page has at most; a longer row has a page of its own.
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
    return "null" if key is None else json.dumps(key_text(key))


class ListSubscription:
    """
    One subscription of one socket to a list.

    Attributes:
        mailbox: The socket's.
        request_id: The client's name for the subscription; any JSON value.
        context: What the surface needs to decide and render; opaque here.
        on_started: Called once with the list, or with a refusal.
        have: Of a client that comes back: the etags that it claims to hold, by the text of the
            keys. None for a client that receives the list with the reply.
        has: Of a client that comes from another list, or comes back: what it holds.
        roster: The list, once he has it.
        special: Digests of rows that he sees otherwise than the others.
        failing: The client was told that the list can't be read for it.
        active: False once it has ended; nothing is delivered any more.
    """

    __slots__ = (
        "active",
        "context",
        "failing",
        "has",
        "have",
        "mailbox",
        "on_started",
        "request_id",
        "roster",
        "special",
    )

    def __init__(
        self,
        mailbox: FrameQueue,
        request_id: object,
        context: object,
        on_started: ListStartCallback,
    ) -> None:
        self.mailbox = mailbox
        self.request_id = request_id
        self.context = context
        self.on_started: ListStartCallback | None = on_started
        self.have: Mapping[str, str] | None = None
        self.has: Shown | None = None
        self.roster: ListState | None = None
        self.special: Shown = {}
        self.failing = False
        self.active = True

    def put(
        self,
        key: Hashable,
        had: bytes | None,
        outcome: Outcome,
        kind: FrameAction | None = None,
    ) -> None:
        """Have a row told; the kind of the frame is what leads there from what he had, if given."""
        self.mailbox.put(ListItemUpdate(self, key, had), outcome, kind)

    def note_refused(self, key: Hashable, shown: bytes | None) -> None:
        """
        Note what the client really has of a row, as he is told that it can't be shown.

        The roster thinks that he has what was found before, but that may have been replaced before
        it was sent.
        """
        if self.roster is not None:
            self.roster.correct(self, key, shown)
        elif self.has is not None:
            self.has[key] = shown


class ListItemUpdate:
    """
    A row of a subscription to a list that has news.

    Equal to every other of the same row and subscription: the mailbox keeps the first, and with it
    what the client really has.
    """

    __slots__ = ("key", "shown", "watch")

    def __init__(self, watch: ListSubscription, key: Hashable, shown: bytes | None) -> None:
        self.watch = watch
        self.key = key
        self.shown = shown

    def __hash__(self) -> int:
        return hash((id(self.watch), self.key))

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
        """Return the frame that leads from what was shown to the outcome."""
        self.shown, kind = step(self.shown, outcome)
        if isinstance(outcome, Refusal) and self.key is not None:
            self.watch.note_refused(self.key, self.shown)
        return kind

    def unsent(self, kind: FrameAction) -> None:
        """Note that no frame can hold the row: the client has an old state of it, or none."""
        self.shown = without(kind)
        self.watch.note_refused(self.key, self.shown)

    def withdrawn(self) -> None:
        """Note that what waited is not sent: the client has what it was shown before."""
        self.watch.note_refused(self.key, self.shown)


Subscription = RowSubscription | ListSubscription

if TYPE_CHECKING:
    ListStartCallback = Callable[[ListSnapshot | Refusal], None]
