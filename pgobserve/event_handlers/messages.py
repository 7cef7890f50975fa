"""Messages for handlers, made from events in a thread, once for all sockets."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from django.db import Error as DatabaseError

from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgobserve.event_handlers.event_observer import EventObserver
    from pgobserve.outbox.event import Event

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """
    A message for the members of a group.

    Attributes:
        observer: The observer that handles it.
        at: When the transaction wrote last, in seconds since the epoch.
        message: The message, with its group.
    """

    observer: EventObserver
    xid: int
    at: float
    message: dict[str, Any]


def prepare(
    events: Sequence[Event], wanted: Mapping[EventObserver, frozenset[str]], alias: str
) -> list[Prepared]:
    """
    Return the messages of events, in their order.

    An observer that fails on a transaction loses its messages of that transaction alone.

    Args:
        events: Events; those of a transaction follow each other.
        wanted: Groups with members, by observer.
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
