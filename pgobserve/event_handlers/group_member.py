"""A socket in a group of a model observer, with its request ids and their start points."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgobserve.consumers import AsyncAPIConsumer
    from pgobserve.hub.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class StartPoint:
    """
    The start of a subscription.

    Attributes:
        snapshot: The subscription receives nothing that is visible in it.
        at: Its time, in seconds since the epoch. A crashed server may assign a transaction id that the
            snapshot sees again; what that transaction writes is later than this time.
    """

    snapshot: Snapshot
    at: float

    def is_before(self, xid: int, at: float) -> bool:
        """Return whether a transaction that wrote at that time comes after the start."""
        return at > self.at or not self.snapshot.sees(xid)


class GroupMember:
    """
    A socket in a group of an observer.

    Attributes:
        ids: Request ids with their start points; None until that is known.
        known: Set while all start points are known.
        delivering: The ids that receive the event being handled.
    """

    __slots__ = ("consumer", "delivering", "ids", "known")

    def __init__(self, consumer: AsyncAPIConsumer) -> None:
        self.consumer = consumer
        # Pairs, not a dictionary: a request id may be any JSON.
        self.ids: list[tuple[Any, StartPoint | None]] = []
        self.known = asyncio.Event()
        self.delivering: list[Any] = []

    def ids_for(self, written: tuple[int, float] | None = None) -> list[Any]:
        """Return the ids that start before a transaction and time; without these, all that have started."""
        return [
            name
            for name, since in self.ids
            if since is not None and (written is None or since.is_before(*written))
        ]

    def add(self, name: Any) -> bool:
        """Add a subscription; return whether its name is new."""
        if any(each == name for each, _ in self.ids):
            return False
        self.ids.append((name, None))
        self.known.clear()
        return True

    def start(self, name: Any, point: StartPoint) -> None:
        """Set the start of a subscription."""
        self.ids = [
            (each, point if each == name and since is None else since) for each, since in self.ids
        ]
        self._settle()

    def remove(self, name: Any | None) -> None:
        """Remove a subscription; without a name, all."""
        self.ids = [] if name is None else [each for each in self.ids if each[0] != name]
        self._settle()

    def _settle(self) -> None:
        if all(since is not None for _, since in self.ids):
            self.known.set()
