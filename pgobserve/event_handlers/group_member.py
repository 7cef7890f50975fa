"""A socket in a group of a model observer: by which request ids, and since when each."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgobserve.consumers import AsyncAPIConsumer
    from pgobserve.hub.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Beginning:
    """
    Where a subscription begins.

    Attributes:
        snapshot: What is visible in it is old news.
        at: When that was, in seconds since the epoch. After a crash the server may give a transaction id again that it gave
            away before; what such a transaction writes is later than this.
    """

    snapshot: Snapshot
    at: float

    def is_before(self, xid: int, at: float) -> bool:
        """Tell whether what a transaction wrote is news."""
        return at > self.at or not self.snapshot.sees(xid)


class GroupMember:
    """
    A socket that is in a group of an observer.

    Attributes:
        ids: The request ids, and where each one's subscription begins; None until that is known.
        telling: The ids that the event at hand is for.
    """

    __slots__ = ("consumer", "ids", "known", "telling")

    def __init__(self, consumer: AsyncAPIConsumer) -> None:
        self.consumer = consumer
        # Pairs, since a request id may be anything that JSON can say.
        self.ids: list[tuple[Any, Beginning | None]] = []
        self.known = asyncio.Event()
        self.telling: list[Any] = []

    def concerned(self, news: tuple[int, float] | None = None) -> list[Any]:
        """Return the request ids that a transaction and time are news to, or without that all."""
        return [
            name
            for name, since in self.ids
            if since is not None and (news is None or since.is_before(*news))
        ]

    def add(self, name: Any) -> bool:
        """Note a subscription, unless there is one of that name already."""
        if any(each == name for each, _ in self.ids):
            return False
        self.ids.append((name, None))
        self.known.clear()
        return True

    def begin(self, name: Any, beginning: Beginning) -> None:
        """Note where a subscription begins."""
        self.ids = [
            (each, beginning if each == name and since is None else since)
            for each, since in self.ids
        ]
        self._settle()

    def remove(self, name: Any | None) -> None:
        """Forget a subscription, or without a name all."""
        self.ids = [] if name is None else [each for each in self.ids if each[0] != name]
        self._settle()

    def _settle(self) -> None:
        if all(since is not None for _, since in self.ids):
            self.known.set()
