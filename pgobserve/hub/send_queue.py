"""
What one socket still has to be told, and which frame that makes.

A mailbox holds the (subscription, row) pairs that have news, not frames. Which frame it is follows,
when it is sent, from what this client last got and what is true now; so conflation, entering and
leaving are one rule, and a socket that does not read holds one pending entry per watched row.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from pgobserve.hub.identity import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable


FrameAction = Literal["create", "update", "delete", "error"]

#: What a client has been shown of a row that is not there (for him).
NOTHING: Final = b""

#: "Not known what he has": whatever is true now must be sent.
UNKNOWN: Final = None

#: He has nothing of the row, and was told that it can't be shown.
UNTOLD: Final = b"?"

#: Seconds for which a frame may wait and be sent as it was checked. Later it is read again.
MAX_AGE: Final = 2.0

#: Rows that are read again at a time for a client that takes its frames slowly.
READ_AGAIN: Final = 64


@dataclass(frozen=True, slots=True)
class View:
    """
    A row as some audience may see it now.

    Attributes:
        body: Its JSON text, or None if it is not there for this audience.
        digest: Of the body, to tell "the same as shown"; :data:`NOTHING` without one.
    """

    body: str | None
    digest: bytes

    @classmethod
    def of(cls, body: str) -> View:
        """Return the view that shows this JSON text."""
        return cls(body, digest_of(body))

    @property
    def etag(self) -> str:
        """What a client that holds this view says when it comes back."""
        return self.digest.hex()


ABSENT: Final = View(None, NOTHING)


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    No view of the row, but an answer: permission denied, or its serializer failed.

    Attributes:
        status: As in a frame's ``response_status``.
        errors: As in a frame's ``errors``.
        named: The client may see the row, so that a frame may name it.
        hides: It is not known whether the client may see the row: without a copy of it, it receives
            nothing.
    """

    status: int
    errors: tuple[Any, ...]
    named: bool = False
    hides: bool = False


#: The answer where a row could not be read for a client; the log says why.
UNREAD: Final = Refusal(
    500, ("The row can't be shown: an error occurred on the server.",), hides=True
)

Outcome = View | Refusal


def step(shown: bytes | None, outcome: Outcome) -> tuple[bytes | None, FrameAction | None]:
    """
    Return the frame that leads from what was shown to an outcome.

    Args:
        shown: Digest of what the client has; :data:`NOTHING`, :data:`UNTOLD` or :data:`UNKNOWN`.
        outcome: What is true now.

    Returns:
        What the client has then, and the frame, None if there is nothing to say.
    """
    had = shown != NOTHING and shown != UNTOLD
    if isinstance(outcome, Refusal):
        if outcome.hides and shown == NOTHING:
            return shown, None
        return (UNKNOWN if had else UNTOLD), "error"
    if shown == outcome.digest:
        return shown, None
    if outcome.body is None:
        return NOTHING, ("delete" if had else None)
    return outcome.digest, ("update" if had else "create")


def without(kind: FrameAction) -> bytes | None:
    """Return what the client has when a frame of this kind could not be sent."""
    return UNTOLD if kind == "create" else UNKNOWN


class RowSubscription:
    """
    One subscription of one socket to one row.

    Attributes:
        mailbox: The socket's.
        key: The row's key.
        request_id: The client's name for the subscription; any JSON value.
        context: What the surface needs to decide and render; opaque here.
        shown: Digest of what the client last got: :data:`NOTHING`, or :data:`UNKNOWN`.
        active: False once it has ended; nothing is delivered any more.
        begun: Called once with the first outcome, in place of a frame.
    """

    __slots__ = ("active", "begun", "context", "key", "mailbox", "request_id", "shown")

    def __init__(
        self, mailbox: SendQueue, key: Hashable, request_id: Any, context: Any, begun: StartCallback
    ) -> None:
        self.mailbox = mailbox
        self.key = key
        self.request_id = request_id
        self.context = context
        self.shown: bytes | None = UNKNOWN
        self.active = True
        self.begun: StartCallback | None = begun

    def offer(self, outcome: Outcome) -> None:
        """Take what a load found; the first one answers the request that made the subscription."""
        if not self.active:
            return
        if self.begun is None:
            self.mailbox.put(self, outcome)
            return
        begun, self.begun = self.begun, None
        if isinstance(outcome, View):
            self.shown = outcome.digest
        begun(outcome)

    def turn(self, outcome: Outcome) -> FrameAction | None:
        """Return the frame that leads from what was shown to the outcome, and note it as shown."""
        self.shown, kind = step(self.shown, outcome)
        return kind

    def unsent(self, kind: FrameAction) -> None:
        """Note that no frame can hold the row: the client has an old state of it, or none."""
        self.shown = without(kind)

    def withdrawn(self) -> None:
        """Note that what waited is not sent: the client has what it was shown before."""


class Barrier:
    """
    Marks a place in the send queue: everything in front of it has been sent once it is reached.

    Args:
        callback: Called when everything in front of it has been sent, or is not to be sent any more.
    """

    __slots__ = ("callback",)

    active = True

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback


class SendQueue:
    """
    The news of one socket, in the order in which rows first had some.

    Args:
        wake: Called when there is something to send and nobody is sending.
        send: Called instead, with the frame, if that one is all there is to send; for the rest it
            must go on as if woken. A frame that need not wait is not put anywhere first.
        again: Called for a row that has waited longer than :data:`MAX_AGE`: rights may have been
            revoked since. Returns whether it is read again; what is found is put here then, unless
            it is nothing new, and :meth:`resume` must be called after a while.
        clock: Monotonic seconds.

    Attributes:
        withdrawn: How often something was taken out unsent, to be read again.
    """

    __slots__ = (
        "_again",
        "_clock",
        "_held",
        "_pending",
        "_rereading",
        "_send",
        "_sending",
        "_wake",
        "withdrawn",
    )

    def __init__(
        self,
        wake: Callable[[], None],
        send: Callable[[NextFrame], None] | None = None,
        again: Callable[[Deliverable], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._again = again
        self._clock = clock
        # By what is equal: the one to tell, which knows what the client really has, the news, and
        # when they were put here.
        self._pending: OrderedDict[Deliverable, tuple[Deliverable, Outcome, float]] = OrderedDict()
        # Those that are being read again. Only then may others wait while nothing is sent.
        self._rereading: set[Deliverable] = set()
        self.withdrawn = 0
        self._held = 0
        self._sending = False
        self._wake: Callable[[], None] | None = wake

    def __len__(self) -> int:
        return len(self._pending) + len(self._rereading)

    def put(self, watch: Deliverable, outcome: Outcome, kind: FrameAction | None = None) -> None:
        """
        Note the latest state of a row; an older one that was not sent yet is replaced.

        The one that is told stays the first of several equal ones, with what it has been shown. What
        makes no frame does not wait: a table may have ever new rows that soon are gone again.

        Args:
            watch: Who is told of which row.
            outcome: What is true now.
            kind: The frame that leads there if nothing waits to be sent, where that is known. Who
                is told is not asked then, and does not note it as shown.
        """
        if self._wake is None:
            return
        if self._sending or self._held or self._send is None or self._pending:
            waiting = self._pending.get(watch)
            first = watch if waiting is None else waiting[0]
            if step(first.shown, outcome)[1] is None:
                self._pending.pop(watch, None)
            else:
                self._pending[watch] = (first, outcome, self._clock())
            if watch in self._rereading:
                self._rereading.discard(watch)
                if watch in self._pending:
                    # At once, or it would be too old again.
                    self._pending.move_to_end(watch, last=False)
            self._stir()
            return
        if self._rereading:
            self._rereading.discard(watch)
        if (kind := kind or watch.turn(outcome)) is not None:
            self._sending = True
            self._send((watch, outcome, kind))

    def put_first(self, watch: Deliverable, outcome: Outcome) -> None:
        """Note a state unless a later one waits already; both lead from what was shown."""
        if watch not in self._pending:
            self.put(watch, outcome)

    def put_barrier(self, callback: Callable[[], object]) -> None:
        """
        Have a function called when all that waits now has been sent.

        That includes the frame that is being sent, and what is being read again because it has waited
        too long. Nothing is called once the mailbox is closed.
        """
        if self._wake is None:
            return
        if not (self._pending or self._rereading or self._sending or self._held):
            callback()
            return
        barrier: Any = Barrier(callback)  # never handed out
        self._pending[barrier] = (barrier, UNREAD, self._clock())
        self._stir()

    def take(self) -> NextFrame | None:
        """
        Return the next frame to send, or None when there is none (any more).

        The caller that :attr:`wake` started must go on until None.
        """
        pending = self._pending
        if not pending:  # mostly
            self._sending = False
            return None
        room = 0 if self._rereading else READ_AGAIN
        while pending and not self._held:
            watch, waiting = pending.popitem(last=False)
            first, outcome, since = waiting
            if not first.active:
                continue
            if isinstance(first, Barrier):
                if self._rereading:
                    pending[watch] = waiting
                    pending.move_to_end(watch, last=False)
                    break
                first.callback()
                continue
            if self._is_old(outcome, since):
                if not room:
                    pending[watch] = waiting
                    pending.move_to_end(watch, last=False)
                    break
                if self._read_again(first):
                    room -= 1
                    continue
            if (kind := first.turn(outcome)) is not None:
                return first, outcome, kind
        self._sending = False
        return None

    def resume(self) -> None:
        """Go on with what waits for others to be read again: there may be no news of them."""
        self._rereading.clear()
        self._stir()

    def _is_old(self, outcome: Outcome, since: float) -> bool:
        """Tell whether it shows something, and has waited for so long that rights may have changed."""
        if self._again is None or isinstance(outcome, Refusal) or outcome.body is None:
            return False
        return self._clock() - since > MAX_AGE

    def _read_again(self, watch: Deliverable) -> bool:
        assert self._again is not None  # noqa: S101 (nothing is old without it)
        if not self._again(watch):
            return False
        watch.withdrawn()
        self.withdrawn += 1
        self._rereading.add(watch)
        return True

    def hold(self) -> None:
        """Send nothing until :meth:`release`: a reply goes before the events that it caused."""
        self._held += 1

    def release(self) -> None:
        """Undo one :meth:`hold`."""
        self._held -= 1
        self._stir()

    def forget(self, watch: Deliverable) -> None:
        """Drop the news of an ended subscription."""
        self._pending.pop(watch, None)
        self._rereading.discard(watch)

    def sweep(self) -> None:
        """Drop the news of all that is not active any more."""
        for watch in [watch for watch in self._pending if not watch.active]:
            del self._pending[watch]
        self._rereading = {watch for watch in self._rereading if watch.active}

    def close(self) -> None:
        """Drop all news; the socket is gone."""
        self._wake = None
        self._pending.clear()
        self._rereading.clear()

    def _stir(self) -> None:
        if self._pending and not self._held and not self._sending and self._wake is not None:
            self._sending = True
            self._wake()


if TYPE_CHECKING:
    StartCallback = Callable[[Outcome], None]
    NextFrame = tuple["Deliverable", Outcome, FrameAction]

    class Deliverable(Protocol):
        """A subscription to a row, or a row of a subscription to a list: what frames are about."""

        @property
        def active(self) -> bool:
            """False once it has ended."""

        @property
        def key(self) -> Hashable:
            """The row's key."""

        @property
        def request_id(self) -> Any:
            """The client's name for the subscription."""

        @property
        def shown(self) -> bytes | None:
            """Digest of what the client has."""

        @property
        def context(self) -> Any:
            """What the surface needs."""

        def withdrawn(self) -> None:
            """Note that what waited is not sent: the client has what it was shown before."""

        def turn(self, outcome: Outcome) -> FrameAction | None:
            """Return the frame that leads to the outcome, and note that as shown."""

        def unsent(self, kind: FrameAction) -> None:
            """Note that the frame could not be sent."""
