"""A subscription to a list, the rows of it that have news, and the list as it was at first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pgobserve.hub.send_queue import (
    NOTHING_SEEN,
    Refusal,
    step,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from pgobserve.hub.list_state import ListState
    from pgobserve.hub.send_queue import FrameAction, Outcome, SendQueue
    from pgobserve.hub.snapshot import Snapshot

    #: Digests by key.
    Shown = dict[Hashable, bytes | None]


#: In place of a list's identity: some rows as in one list, some as in another.
BETWEEN: Final = object()


@dataclass(slots=True)
class ListSnapshot:
    """
    A list as one client sees it; shared with those who see the same.

    Attributes:
        bodies: JSON of its rows, in the list's order.
        unchanged: The client has it all, or it comes by frames.
        reset: What the client has is of no use.
    """

    bodies: Sequence[str] = ()
    unchanged: bool = False
    reset: bool = False
    pages: dict[tuple[int, int], list[str]] = field(default_factory=dict)

    def cut(self, rows: int, length: int) -> list[str]:
        """
        Return the rows as JSON arrays without brackets; at least one.

        Args:
            rows: How many an array has at most.
            length: Characters that it has at most; a longer row has an array of its own.
        """
        if (rows, length) not in self.pages:
            pages: list[list[str]] = [[]]
            room = length
            for body in self.bodies:
                room -= len(body) + 1
                if pages[-1] and (room < 0 or len(pages[-1]) >= rows):
                    pages.append([])
                    room = length - len(body) - 1
                pages[-1].append(body)
            self.pages[rows, length] = [",".join(page) for page in pages]
        return self.pages[rows, length]


class ListSubscription:
    """
    One subscription of one socket to a list.

    Attributes:
        mailbox: The socket's.
        request_id: The client's name for the subscription; any JSON value.
        context: What the surface needs to decide and render; opaque here.
        begun: Called once with the list and its snapshot, or with a refusal.
        has: Of a client who comes from another list, or comes back: what he has. None for one who
            gets the list with the reply.
        roster: The list, once he has it.
        special: Digests of rows that he sees otherwise than the others.
        refused: Rows that can't be shown to him and could to others: what he has of them is old.
        told: What he has seen once he has read all frames that were sent.
        told_of: Of which list that is: its identity, or :data:`BETWEEN`.
        active: False once it has ended; nothing is delivered any more.
    """

    __slots__ = (
        "active",
        "begun",
        "context",
        "has",
        "mailbox",
        "refused",
        "request_id",
        "roster",
        "special",
        "told",
        "told_of",
    )

    def __init__(
        self, mailbox: SendQueue, request_id: Any, context: Any, begun: ListStartCallback
    ) -> None:
        self.mailbox = mailbox
        self.request_id = request_id
        self.context = context
        self.begun: ListStartCallback | None = begun
        self.has: Shown | None = None
        self.roster: ListState | None = None
        self.special: Shown = {}
        self.refused: set[Hashable] = set()
        self.told: Snapshot | None = None
        self.told_of: Hashable = None
        self.active = True

    def put(
        self,
        key: Hashable,
        had: bytes | None,
        outcome: Outcome,
        snapshot: Snapshot,
        kind: FrameAction | None = None,
    ) -> None:
        """Have a row told; the kind of the frame is what leads there from what he had, if given."""
        self.mailbox.put(ListItemUpdate(self, key, had), outcome, snapshot, kind)

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
    def request_id(self) -> Any:
        """The client's name for the subscription."""
        return self.watch.request_id

    @property
    def context(self) -> Any:
        """What the surface needs."""
        return self.watch.context

    @property
    def told_of(self) -> Hashable:
        """Of which list it is what a token says."""
        return self.watch.told_of

    def turn(self, outcome: Outcome) -> FrameAction | None:
        """Return the frame that leads from what was shown to the outcome."""
        self.shown, kind = step(self.shown, outcome)
        if isinstance(outcome, Refusal) and self.key is not None:
            self.watch.note_refused(self.key, self.shown)
        return kind

    def unsent(self, kind: FrameAction) -> None:
        """Note that no frame can hold the row: the client has an old state of it, or none."""
        watch = self.watch
        self.shown = without(kind)
        watch.refused.add(self.key)
        watch.note_refused(self.key, self.shown)
        watch.told = None if watch.told is None else NOTHING_SEEN

    def withdrawn(self) -> None:
        """Note that what waited is not sent: the client has what it was shown before."""
        self.watch.refused.add(self.key)  # the token must not say more
        self.watch.note_refused(self.key, self.shown)

    def token(self, snapshot: Snapshot) -> Snapshot | None:
        """
        Return what the client has seen once he has this frame.

        Not the snapshot that the row was read in: of other rows there may be more to tell that is
        visible in it.
        """
        watch, roster = self.watch, self.watch.roster
        # Nor if he has an old state of a row: he would never hear of it when he comes back.
        if roster is not None and not (roster.refused or watch.refused or len(watch.mailbox)):
            watch.told, watch.told_of = roster.base, roster.identity
        return watch.told


if TYPE_CHECKING:
    ListStartCallback = Callable[[ListSnapshot | Refusal, Snapshot], None]
