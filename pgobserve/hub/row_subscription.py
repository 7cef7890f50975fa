"""A subscription to a row, and the queue of frames as the hub knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pgobserve.hub.outcome import UNKNOWN, step, without

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from pgobserve.hub.outcome import FrameAction, Outcome

    StartCallback = Callable[[Outcome], None]


class Deliverable(Protocol):
    """What a frame is about: a subscription to a row, or one row of a subscription to a list."""

    @property
    def active(self) -> bool:
        """False once the subscription has ended."""

    @property
    def key(self) -> Hashable:
        """The row's key."""

    @property
    def request_id(self) -> object:
        """The client's name for the subscription."""

    @property
    def shown(self) -> bytes | None:
        """Digest of what the client holds."""

    @property
    def context(self) -> object:
        """The subscription's context; opaque here."""

    def withdrawn(self) -> None:
        """Record that a waiting state is not sent: the client keeps what it was shown before."""

    def turn(self, outcome: Outcome) -> FrameAction | None:
        """Return the frame that leads to the outcome, and record that as shown."""

    def unsent(self, kind: FrameAction) -> None:
        """Record that the frame could not be sent."""


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
    on_started: StartCallback | None
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
