"""A socket in a group of a model observer, and the messages for its handler, made in a thread once for all sockets."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from django.db import Error as DatabaseError

from pgobserve.event_handlers.lost_references import LostReferences
from pgobserve.event_handlers.observer_base import BaseObserver
from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
    """
    A message for the members of a group, or None for a reset of all groups of the observer.

    ``at`` is when its transaction wrote last, in epoch seconds.
    """

    observer: EventObserver
    xid: int
    at: float
    message: dict[str, Any] | None

    def own_message(self) -> Any:
        """Return the message for one socket: a project's own ``__call__`` may change it."""
        copies = type(self.observer).__call__ is BaseObserver.__call__
        return self.message if copies else deepcopy(self.message)


def prepare(
    events: Sequence[Event], wanted: Mapping[EventObserver, frozenset[str]], alias: str
) -> list[Prepared]:
    """
    Return the messages of events, in their order.

    Where an observer fails on a row, or can't find the groups that a deleted row was in, its subscribers
    receive a reset. Other rows of the transaction, and other observers, are not affected.

    Args:
        events: Events; those of a transaction follow each other.
        wanted: Groups with members, by observer.
    """
    prepared: list[Prepared] = []
    for xid, part in groupby(events, lambda event: event.xid):
        of_transaction = [*part]
        at = max(event.at.timestamp() for event in of_transaction)
        for observer, groups in wanted.items():
            about = _Failures(observer, xid, alias)
            messages = [*_messages(observer, of_transaction, groups, about)]
            if about.count:
                messages.append(None)
            prepared += [Prepared(observer, xid, at, message) for message in messages]
    return prepared


def _messages(
    observer: EventObserver, events: list[Event], groups: frozenset[str], failures: _Failures
) -> Iterator[dict[str, Any] | None]:
    try:
        rows = [*observer.sources.rows(events, failures.alias)]
    except DatabaseError:
        raise
    except Exception as error:  # noqa: BLE001 (it is logged)
        failures.log("failed on", None, error)
        return
    for old, new in rows:
        row: Any = old if new is None else new
        lost = LostReferences(row)
        try:
            with lost.watched() if new is None else nullcontext():
                yield from [*observer.messages(old, new, groups)]
        except DatabaseError:
            raise
        except Exception as error:  # noqa: BLE001 (it is logged)
            failures.log("failed on", row.pk, error)
        if lost.read:
            failures.log("can't know the groups of the deleted row", row.pk)


class _Failures:
    """Logs the failures of an observer on a transaction: the first of them, to not flood the log."""

    def __init__(self, observer: EventObserver, xid: int, alias: str) -> None:
        self.alias = alias
        self.count = 0
        self._observer = observer
        self._xid = xid

    def log(self, what: str, key: Any, error: Exception | None = None) -> None:
        """Count a failure, and log it if it is the first."""
        self.count += 1
        if self.count > 1:
            return
        name, label = self._observer.func.__qualname__, self._observer.model_cls._meta.label_lower
        about = fields(consumer=name.rpartition(".")[0], model=label, key=key, alias=self.alias)
        logger.log(
            logging.WARNING if error is None else logging.ERROR,
            "The observer %s %s %s %s in transaction %s of database %r; its subscribers receive a reset.",
            *(name, what, label, key, self._xid, self.alias),
            exc_info=error,
            extra={**about, "transaction": self._xid},
        )
