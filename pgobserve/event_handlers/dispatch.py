"""
From events to the handlers of those who subscribed.

For each event and observer the groups are found and the row is serialized once, in a thread;
then each subscribed socket gets a reference to the message, and handles it in its turn. A slow
handler holds its own socket alone: what waits for it are references to messages that all share.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, ref

from django.db import Error as DatabaseError
from django.db import connections, router

from pgobserve.deliver.feeds import feed_of, tell_not_observed
from pgobserve.errors import FeedUnavailable
from pgobserve.event_handlers.group_member import Beginning, GroupMember
from pgobserve.exceptions import EventsNotObserved, FeedDown
from pgobserve.hub.snapshot import Snapshot
from pgobserve.logs import fields
from pgobserve.outbox.event import Event
from pgobserve.workers.backoff import backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from pgobserve.consumers import AsyncAPIConsumer
    from pgobserve.event_handlers.model_events import ModelObserver
    from pgobserve.outbox.event import Reset
    from pgobserve.outbox.event_subscriptions import EventSubscription
    from pgobserve.runtime.runtime import Feed

logger = logging.getLogger(__name__)

#: Events that wait for their serialization before the reader is asked to wait.
MOST_WAITING: Final = 5_000

#: Stands for the request id of a subscription that was made without one.
_UNNAMED: Final = object()

Groups = dict[str, "dict[AsyncAPIConsumer, GroupMember]"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """
    A message, ready for whoever is in its group.

    Attributes:
        observer: Whose.
        xid: The transaction.
        at: When it wrote last, in seconds since the epoch.
        message: With its group.
    """

    observer: ModelObserver
    xid: int
    at: float
    message: dict[str, Any]


class Dispatcher:
    """What model observers need in one event loop, for one database alias."""

    def __init__(self, feed: Feed) -> None:
        self._feed_ref = ref(feed)
        self._alias = feed.options.alias
        self.members: dict[ModelObserver, Groups] = {}
        self._follows: dict[frozenset[str], EventSubscription] = {}
        self._waiting: deque[tuple[frozenset[str], Sequence[Event | Reset]]] = deque()
        self._task: asyncio.Task[None] | None = None
        # Batches taken and handed over so far, and the waiting calls of `settle`, by batch number.
        self._taken = self._handed = 0
        self._awaiting: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def _feed(self) -> Feed:
        feed = self._feed_ref()
        assert feed is not None  # noqa: S101 (it lives as long as its event loop)
        return feed

    # Who is in which group

    async def join(
        self, observer: ModelObserver, consumer: AsyncAPIConsumer, groups: list[str], name: Any
    ) -> None:
        """Put a socket into groups; it is told what is committed from now on."""
        await self._follow(observer)
        added = [m for m in self._members(observer, consumer, groups) if m.add(name)]
        if not added:
            self.tidy(observer, consumer, groups)
            return
        try:
            # After they were added: what is committed in between comes, and is judged by this.
            beginning = await self._feed.call(partial(_beginning, self._alias))
        except BaseException:
            for member in added:
                member.remove(name)
            self.tidy(observer, consumer, groups)
            raise
        for member in added:
            member.begin(name, beginning)

    def _members(
        self, observer: ModelObserver, consumer: AsyncAPIConsumer, groups: Iterable[str]
    ) -> list[GroupMember]:
        if consumer.inbox.closed:
            return []
        of_observer = self.members.setdefault(observer, {})
        members = []
        for group in groups:
            of_group = of_observer.setdefault(group, {})
            if consumer not in of_group:
                of_group[consumer] = GroupMember(consumer)
                sources = consumer.inbox.sources
                sources[self] = sources.get(self, 0) + 1
                consumer.inbox.at_end(partial(self.leave, observer, consumer, (group,), None))
            members.append(of_group[consumer])
        return members

    def leave(
        self,
        observer: ModelObserver,
        consumer: AsyncAPIConsumer,
        groups: Iterable[str],
        name: Any | None,
    ) -> None:
        """Take a socket's subscription out of groups, or without a name all of its there."""
        for group in groups:
            member = self.find(observer, consumer, group)
            if member is not None:
                member.remove(name)
        self.tidy(observer, consumer, groups)

    def find(
        self, observer: ModelObserver, consumer: AsyncAPIConsumer, group: str
    ) -> GroupMember | None:
        """Return a socket's membership of a group, if there is one."""
        return self.members.get(observer, {}).get(group, {}).get(consumer)

    def tidy(
        self, observer: ModelObserver, consumer: AsyncAPIConsumer, names: Iterable[str]
    ) -> None:
        """Forget what is empty: members without ids, groups, observers; follow no more for none."""
        groups = self.members.get(observer, {})
        for name in names:
            members = groups.get(name, {})
            if consumer in members and not members[consumer].ids:
                del members[consumer]
                consumer.inbox.sources[self] -= 1
                if not consumer.inbox.sources[self]:
                    del consumer.inbox.sources[self]
            if not members:
                groups.pop(name, None)
        if not groups:
            self.members.pop(observer, None)
        wanted = {each.sources.labels for each in self.members}
        for labels in self._follows.keys() - wanted:
            self._follows.pop(labels).close()

    # From the outbox to messages

    async def _follow(self, observer: ModelObserver) -> None:
        sources = observer.sources
        tables = [model._meta.db_table for model in sources.models]
        try:
            if not await self._feed.is_observed(tables, outbox=True):
                raise tell_not_observed(
                    EventsNotObserved(observer.model_cls._meta.label), self._alias
                )
            if sources.labels not in self._follows:
                follow = await self._feed.follow(
                    sources.labels, partial(self._take, sources.labels)
                )
                if sources.labels in self._follows:  # somebody else was faster
                    follow.close()
                else:
                    self._follows[sources.labels] = follow
        except FeedUnavailable as error:
            raise FeedDown(str(error)) from error

    def _take(
        self, labels: frozenset[str], events: Sequence[Event | Reset]
    ) -> Awaitable[Any] | None:
        """Take what the reader read; it waits if there is too much."""
        self._taken += 1
        self._waiting.append((labels, events))
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="pgobserve-model-observers")
        too_much = sum(len(events) for _, events in self._waiting) > MOST_WAITING
        return asyncio.shield(self._task) if too_much else None

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._handle(*self._waiting[0])
                self._waiting.popleft()
                self._note_handed()
        finally:
            self._task = None

    def _note_handed(self) -> None:
        self._handed += 1
        for number, future in self._awaiting:
            if number <= self._handed and not future.done():
                future.set_result(None)
        self._awaiting = [each for each in self._awaiting if not each[1].done()]

    async def settle(self) -> None:
        """Return when the events of everything committed before now are in the inboxes."""
        await self._feed.fence.passed()
        if self._taken > self._handed:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._awaiting.append((self._taken, future))
            await future

    async def _handle(self, labels: frozenset[str], batch: Sequence[Event | Reset]) -> None:
        for is_event, part in groupby(batch, lambda each: isinstance(each, Event)):
            if is_event:
                self._deliver(await self._prepared(labels, [*part]))  # type: ignore[list-item]
            else:
                for reset in part:
                    self._reset(labels, reset)  # type: ignore[arg-type]

    async def _prepared(self, labels: frozenset[str], events: list[Event]) -> list[Prepared]:
        """Serialize in a thread; while the database is away, try again: no event may be lost."""
        delays, lost = backoff(), Lost(labels, events, self._alias)
        while True:
            wanted = {
                observer: frozenset(groups)
                for observer, groups in self.members.items()
                if observer.sources.labels == labels
            }
            try:
                prepared = await self._feed.call(partial(prepare, events, wanted, self._alias))
            except FeedUnavailable as error:
                lost.log(error)
                await asyncio.sleep(next(delays))
                continue
            except Exception:
                first = events[0].xid
                if events[-1].xid == first:
                    logger.exception(
                        "Serializing events of %s failed for transaction %d of database %r; subscribers "
                        "do not receive them.",
                        *(", ".join(sorted(labels)), first, self._alias),
                        extra=lost.about,
                    )
                    return []
                # One transaction must not spoil the batch it shares.
                parts = [[*part] for _, part in groupby(events, lambda event: event.xid)]
                return [each for part in parts for each in await self._prepared(labels, part)]
            lost.log_recovery()
            return prepared

    def _deliver(self, prepared: Iterable[Prepared]) -> None:
        for each in prepared:
            group = each.message["group"]
            for member in self.members.get(each.observer, {}).get(group, {}).values():
                member.consumer.inbox.put(
                    each.observer.func.__qualname__, partial(_tell, member, each)
                )

    def _reset(self, labels: frozenset[str], reset: Reset) -> None:
        names = ", ".join(sorted(labels))
        logger.warning(
            "Events of %s in database %r may be missing: %s. Subscribers receive a reset.",
            *(names, self._alias, reset.why),
            extra=fields(model=names, alias=self._alias),
        )
        for observer, groups in self.members.items():
            if observer.sources.labels != labels:
                continue
            for group, members in groups.items():
                for member in members.values():
                    call = partial(_tell_reset, member, observer, group, str(reset.why))
                    member.consumer.inbox.put(observer.func.__qualname__, call)


async def _tell(member: GroupMember, prepared: Prepared) -> None:
    """Call the handler of one socket, if the event is after the beginning of a subscription."""
    await member.known.wait()
    ids = member.concerned((prepared.xid, prepared.at))
    if ids:
        member.telling = ids
        await prepared.observer(prepared.message, consumer=member.consumer)


async def _tell_reset(
    member: GroupMember, observer: ModelObserver, group: str, reason: str
) -> None:
    await member.known.wait()
    member.telling = member.concerned()
    if member.telling:
        await observer.tell_reset(member.consumer, group, reason)


class Lost:
    """
    A database that events wait for; logs the loss once, and the recovery.

    Args:
        labels: Of the models.
        events: The events.
        alias: The database alias.
    """

    def __init__(self, labels: frozenset[str], events: Sequence[Event], alias: str) -> None:
        names, first = ", ".join(sorted(labels)), events[0].xid
        self.about = fields(model=names, alias=alias, transaction=first)
        self._names = (len(events), names, first, alias)
        self._since: float | None = None

    def log(self, error: Exception) -> None:
        """Log the loss, if it is new."""
        if self._since is None:
            self._since = time.monotonic()
            logger.warning(
                "%d events of %s, from transaction %s on, wait for database %r: %s",
                *(*self._names, error),
                extra=self.about,
            )

    def log_recovery(self) -> None:
        """Log that the events go on, if they had to wait."""
        if self._since is not None:
            logger.warning(
                "%d events of %s, from transaction %s on, are delivered: database %r answers again "
                "after %.1f s.",
                *(*self._names, time.monotonic() - self._since),
                extra=self.about,
            )


def prepare(
    events: Sequence[Event], wanted: dict[ModelObserver, frozenset[str]], alias: str
) -> list[Prepared]:
    """
    Return the messages that events mean, in their order.

    Args:
        events: Those of a transaction follow each other.
        wanted: By observer the groups in which somebody is.
        alias: Of the database.
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
            except Exception:
                name, labels = (
                    observer.func.__qualname__,
                    ", ".join(sorted(observer.sources.labels)),
                )
                logger.exception(
                    "The observer %s failed on events of %s in transaction %s of database %r; its "
                    "subscribers do not receive them.",
                    *(name, labels, xid, alias),
                    extra=fields(
                        consumer=name.rpartition(".")[0], model=labels, alias=alias, transaction=xid
                    ),
                )
    return prepared


_dispatchers: WeakKeyDictionary[Feed, Dispatcher] = WeakKeyDictionary()


def dispatcher(alias: str) -> Dispatcher:
    """Return the running event loop's dispatcher for a database alias."""
    feed = feed_of(alias)
    if feed not in _dispatchers:
        _dispatchers[feed] = Dispatcher(feed)
    return _dispatchers[feed]


async def join(
    observer: ModelObserver, consumer: AsyncAPIConsumer, groups: list[str], request_id: Any
) -> None:
    """
    Subscribe a socket to groups of an observer.

    Raises:
        EventsNotObserved: The table's triggers don't write to the outbox.
        FeedDown: The database can't be reached.
    """
    name = _UNNAMED if request_id is None else request_id
    of_alias = dispatcher(router.db_for_write(observer.model_cls))
    try:
        await of_alias.join(observer, consumer, groups, name)
    except FeedUnavailable as error:
        raise FeedDown(str(error)) from error


def leave(
    observer: ModelObserver, consumer: AsyncAPIConsumer, groups: list[str], request_id: Any
) -> None:
    """End what a socket subscribed to by that request id, or without one all of it."""
    of_alias = dispatcher(router.db_for_write(observer.model_cls))
    of_alias.leave(observer, consumer, groups, request_id)


def ids_to_tell(observer: ModelObserver, consumer: AsyncAPIConsumer, group: str) -> list[Any]:
    """Return the request ids that the event at hand is for."""
    of_alias = dispatcher(router.db_for_write(observer.model_cls))
    member = of_alias.find(observer, consumer, group)
    return [] if member is None else [each for each in member.telling if each is not _UNNAMED]


def _beginning(alias: str) -> Beginning:
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT pg_catalog.pg_current_snapshot()::text, "
            "extract(epoch FROM pg_catalog.clock_timestamp())::float8"
        )
        text, at = cursor.fetchone()
        return Beginning(Snapshot.parse(text), at)
