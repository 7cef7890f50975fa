"""
The frames that one socket has still to receive.

The queue holds pairs of a subscription and a row, not frames. Which frame a pair makes follows when it is
sent, from what the client holds by then. A socket that does not read thus holds one entry per row.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pgobserve.hub.outcome import UNREAD, Refusal, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgobserve.hub.outcome import FrameAction, Outcome
    from pgobserve.hub.subscriptions import Deliverable

    NextFrame = tuple[Deliverable, Outcome, FrameAction]

#: Seconds that a checked frame may wait. A row that waits longer is read again.
MAX_AGE: Final = 2.0

#: Rows that are read again at a time for a client that reads its frames slowly.
READ_AGAIN: Final = 64


@dataclass(slots=True, eq=False)
class Barrier:
    """A mark in the send queue; it is reached when everything in front of it has been sent."""

    callback: Callable[[], object]
    active: bool = True


@dataclass(slots=True, eq=False)
class SendQueue:
    """
    The changed rows of one socket, in the order of their first change.

    Args:
        wake: Called when there are frames to send and none is being sent.
        send: Called with the frame in place of ``wake`` if it is the only one. The sender then
            continues as if woken.
        again: Called for a row that has waited longer than :data:`MAX_AGE`, since permissions may
            have been revoked. Returns whether the row is read again. If so, a changed row is put here
            again, and :meth:`resume` must be called after a while.

    Attributes:
        withdrawn: Number of rows withdrawn unsent in order to be read again.
    """

    _wake: Callable[[], None] | None
    _send: Callable[[NextFrame], None] | None = None
    _again: Callable[[Deliverable], bool] | None = None
    _clock: Callable[[], float] = time.monotonic
    withdrawn: int = 0
    # Equal items share an entry: the first of them, which records what the client really holds,
    # the latest outcome, and when it was put here.
    _pending: OrderedDict[Any, tuple[Any, Outcome, float]] = field(default_factory=OrderedDict)
    # Items that are being read again. Only then may others wait while nothing is sent.
    _rereading: set[Deliverable] = field(default_factory=set)
    _held: int = 0
    _sending: bool = False

    def __len__(self) -> int:
        return len(self._pending) + len(self._rereading)

    def put(self, watch: Deliverable, outcome: Outcome, kind: FrameAction | None = None) -> None:
        """
        Queue the latest state of a row; it replaces an older one that was not sent yet.

        The first of several equal items stays, because it records what the client holds. A state that
        makes no frame is dropped: short-lived rows would otherwise pile up.

        Args:
            watch: The subscription, or the row of its list.
            kind: The frame that leads there, if known and nothing waits. The item's ``turn`` is not
                called then.
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
            if self._rereading and watch in self._rereading:
                self._rereading.discard(watch)
                if watch in self._pending:
                    # It goes first, or it would be too old again.
                    self._pending.move_to_end(watch, last=False)
            self._stir()
            return
        if self._rereading:
            self._rereading.discard(watch)
        if (kind := kind or watch.turn(outcome)) is not None:
            self._sending = True
            self._send((watch, outcome, kind))

    def put_first(self, watch: Deliverable, outcome: Outcome) -> None:
        """Queue a state unless a later one waits already; both lead from what was shown."""
        if watch not in self._pending:
            self.put(watch, outcome)

    def put_barrier(self, callback: Callable[[], object]) -> None:
        """
        Call a function when everything that waits now has been sent.

        That includes the frame being sent and the rows being read again. The function is not called
        once the queue is closed.
        """
        if self._wake is None:
            return
        if not (self._pending or self._rereading or self._sending or self._held):
            callback()
            return
        barrier = Barrier(callback)  # never handed out
        self._pending[barrier] = (barrier, UNREAD, self._clock())
        self._stir()

    def take(self) -> NextFrame | None:
        """
        Return the next frame to send; None if there is none.

        The sender that ``wake`` started must continue until None.
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
        """Stop waiting for rows that are being read again: they may not have changed."""
        self._rereading.clear()
        self._stir()

    def _is_old(self, outcome: Outcome, since: float) -> bool:
        """Return whether a frame shows a row and has waited long enough for permissions to change."""
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
        """Send nothing until :meth:`release`, so that a reply precedes the frames that it caused."""
        self._held += 1

    def release(self) -> None:
        """Undo one :meth:`hold`."""
        self._held -= 1
        self._stir()

    def forget(self, watch: Deliverable) -> None:
        """Drop what waits for an ended subscription."""
        self._pending.pop(watch, None)
        self._rereading.discard(watch)

    def sweep(self) -> None:
        """Drop what waits for any ended subscription."""
        for watch in [watch for watch in self._pending if not watch.active]:
            del self._pending[watch]
        self._rereading = {watch for watch in self._rereading if watch.active}

    def close(self) -> None:
        """Drop everything; the socket is gone."""
        self._wake = None
        self._pending.clear()
        self._rereading.clear()

    def _stir(self) -> None:
        if self._pending and not self._held and not self._sending and self._wake is not None:
            self._sending = True
            self._wake()
