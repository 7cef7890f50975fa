"""A socket in a group of a model observer, and the messages for its handler, made in a thread once for all sockets."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from django.db import Error as DatabaseError

from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgobserve.consumers import AsyncAPIConsumer
    from pgobserve.event_handlers.observer_base import EventObserver
    from pgobserve.hub.snapshot import Snapshot
    from pgobserve.outbox.event import Event

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StartPoint:
    """
    The start of a subscription, which receives nothing that is visible in the snapshot.

    ``at`` is its time, in seconds since the epoch. A crashed server may assign a transaction id that the
    snapshot sees again; what that transaction writes is later than this time.
    """

    snapshot: Snapshot
    at: float

    def is_before(self, xid: int, at: float) -> bool:
        return at > self.at or not self.snapshot.sees(xid)


@dataclass(slots=True, eq=False)
class GroupMember:
    """
    A socket in a group of an observer.

    Attributes:
        ids: Request ids with their start points; None until that is known.
        delivering: The ids that receive the event being handled.
    """

    consumer: AsyncAPIConsumer
    # Pairs, not a dictionary: a request id may be any JSON.
    ids: list[tuple[Any, StartPoint | None]] = field(default_factory=list)
    known: asyncio.Event = field(default_factory=asyncio.Event)
    delivering: list[Any] = field(default_factory=list)

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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message for the members of a group; ``at`` is when its transaction wrote last, in epoch seconds."""

    observer: EventObserver
    xid: int
    at: float
    message: dict[str, Any]


def prepare(
    events: Sequence[Event], wanted: Mapping[EventObserver, frozenset[str]], alias: str
) -> list[Prepared]:
    """
    Return the messages for groups with members, in the order of events, which come by transaction.

    An observer that fails on a transaction loses its messages of that transaction alone.
    """
    prepared: list[Prepared] = []
    for xid, part in groupby(events, lambda event: event.xid):
        of_transaction = [*part]
        at = max(event.at.timestamp() for event in of_transaction)
        for observer, groups in wanted.items():
            try:
                rows = observer.sources.rows(of_transaction, alias)
                messages = [each for row in rows for each in observer.messages(*row, groups)]
                prepared += [Prepared(observer, xid, at, message) for message in messages]
            except DatabaseError:
                raise
            except Exception as error:  # noqa: BLE001 (it is logged)
                _log_failure(error, observer, xid, alias)
    return prepared


def _log_failure(error: Exception, observer: EventObserver, xid: int, alias: str) -> None:
    name, labels = observer.func.__qualname__, ", ".join(sorted(observer.sources.labels))
    logger.error(
        "The observer %s failed on events of %s in transaction %s of database %r; its "
        "subscribers do not receive them.",
        *(name, labels, xid, alias),
        extra=fields(consumer=name.rpartition(".")[0], model=labels, alias=alias, transaction=xid),
    )
