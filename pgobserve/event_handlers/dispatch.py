"""
Delivers events to the handlers of subscribed consumers.

A thread finds the groups of each event and serializes the row once. Each subscribed socket then receives a
reference to the message, and handles it in its turn. A slow handler delays only its own socket, and its
backlog consists of references to shared messages.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, ref

from django.db import DEFAULT_DB_ALIAS, connections, router

from pgobserve.errors import FeedUnavailable
from pgobserve.event_handlers.group_messages import GroupMember, Prepared, StartPoint, prepare
from pgobserve.exceptions import EventsNotObserved, FeedDown
from pgobserve.hub.snapshot import Snapshot
from pgobserve.logs import fields
from pgobserve.outbox.event import Event
from pgobserve.subscribe.feeds import feed_of, log_not_observed
from pgobserve.workers.retrying import backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from pgobserve.consumers import AsyncAPIConsumer
    from pgobserve.event_handlers.observer_base import EventObserver
    from pgobserve.outbox.event import Reset
    from pgobserve.outbox.event_subscriptions import EventSubscription
    from pgobserve.runtime.feed import Feed

logger = logging.getLogger(__name__)

#: Events that may wait for their serialization before the reader has to wait.
MOST_WAITING: Final = 5_000

#: The reason of a reset by which an observer's own code failed, or could not know a row's groups.
UNRESOLVED: Final = "unresolved"

#: Stands for the request id of a subscription without one.
_UNNAMED: Final = object()

Groups = dict[str, "dict[AsyncAPIConsumer, GroupMember]"]


class Dispatcher:
    """Delivers the events of a database alias to the model observers of an event loop."""

    def __init__(self, feed: Feed) -> None:
        self._feed_ref = ref(feed)
        self._alias = feed.options.alias
        self.members: dict[EventObserver, Groups] = {}
        self._subscriptions: dict[frozenset[str], EventSubscription] = {}
        self._waiting: deque[tuple[frozenset[str], Sequence[Event | Reset]]] = deque()
        self._task: asyncio.Task[None] | None = None
        # Batches taken and handed over so far.
        self._taken = self._handed = 0
        self._handing = asyncio.Condition()

    @property
    def _feed(self) -> Feed:
        feed = self._feed_ref()
        assert feed is not None  # noqa: S101 (it lives as long as its event loop)
        return feed

    # Members of groups

    async def join(
        self, observer: EventObserver, consumer: AsyncAPIConsumer, groups: list[str], name: Any
    ) -> None:
        """Put a socket into groups; it receives the events of what is committed from now on."""
        await self._subscribe(observer)
        added = [m for m in self._members(observer, consumer, groups) if m.add(name)]
        if not added:
            self.tidy(observer, consumer, groups)
            return
        try:
            # After they were added: an event committed in between is queued for them, and this snapshot
            # then decides whether they receive it. In the other order it would be lost.
            point = await self._feed.call(partial(_start_point, self._alias))
        except BaseException:
            for member in added:
                member.remove(name)
            self.tidy(observer, consumer, groups)
            raise
        for member in added:
            member.start(name, point)

    def _members(
        self, observer: EventObserver, consumer: AsyncAPIConsumer, groups: Iterable[str]
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
                consumer.inbox.on_close(partial(self.leave, observer, consumer, (group,), None))
            members.append(of_group[consumer])
        return members

    def leave(
        self,
        observer: EventObserver,
        consumer: AsyncAPIConsumer,
        groups: Iterable[str],
        name: Any | None,
    ) -> None:
        """End a socket's subscription to groups; without a name, all its subscriptions to them."""
        for group in groups:
            member = self.find(observer, consumer, group)
            if member is not None:
                member.remove(name)
        self.tidy(observer, consumer, groups)

    def find(
        self, observer: EventObserver, consumer: AsyncAPIConsumer, group: str
    ) -> GroupMember | None:
        return self.members.get(observer, {}).get(group, {}).get(consumer)

    def tidy(
        self, observer: EventObserver, consumer: AsyncAPIConsumer, names: Iterable[str]
    ) -> None:
        """Remove empty members, groups and observers, and end event subscriptions without observers."""
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
        for labels in self._subscriptions.keys() - wanted:
            self._subscriptions.pop(labels).close()

    # From the outbox to inboxes

    async def _subscribe(self, observer: EventObserver) -> None:
        labels = observer.sources.labels
        tables = [model._meta.db_table for model in observer.sources.models]
        if not await self._feed.triggers.pass_for(tables, outbox=True):
            database = "" if self._alias == DEFAULT_DB_ALIAS else f" --database {self._alias}"
            error = EventsNotObserved(observer.model_cls._meta.label, database)
            raise log_not_observed(error, self._alias)
        if labels not in self._subscriptions:
            taking = partial(self._take, labels)
            subscription = await self._feed.subscribe_events(labels, taking)
            if labels in self._subscriptions:  # another task was faster
                subscription.close()
            else:
                self._subscriptions[labels] = subscription

    def _take(
        self, labels: frozenset[str], events: Sequence[Event | Reset]
    ) -> Awaitable[Any] | None:
        """Queue events; the reader waits for what this returns, if too many are queued."""
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
                async with self._handing:
                    self._handed += 1
                    self._handing.notify_all()
        finally:
            self._task = None

    async def settle(self) -> None:
        """Return when the events of everything committed before now are in the inboxes."""
        await self._feed.fence.passed()
        taken = self._taken
        async with self._handing:
            await self._handing.wait_for(lambda: self._handed >= taken)

    async def _handle(self, labels: frozenset[str], batch: Sequence[Event | Reset]) -> None:
        for is_event, part in groupby(batch, lambda each: isinstance(each, Event)):
            if is_event:
                self._deliver(await self._prepared(labels, [*part]))  # type: ignore[list-item]
            else:
                for reset in part:
                    self._reset(labels, reset)  # type: ignore[arg-type]

    async def _prepared(self, labels: frozenset[str], events: list[Event]) -> list[Prepared]:
        """Serialize in a thread, and retry while the database is away: no event may be lost."""
        delays, outage = backoff(), Outage(labels, events, self._alias)
        while True:
            wanted = {
                observer: frozenset(groups)
                for observer, groups in self.members.items()
                if observer.sources.labels == labels
            }
            try:
                prepared = await self._feed.call(partial(prepare, events, wanted, self._alias))
            except FeedUnavailable as error:
                outage.log(error)
                await asyncio.sleep(next(delays))
                continue
            except Exception:
                first = events[0].xid
                if events[-1].xid == first:
                    logger.exception(
                        "Serializing events of %s failed for transaction %d of database %r; subscribers "
                        "receive a reset.",
                        *(", ".join(sorted(labels)), first, self._alias),
                        extra=outage.about,
                    )
                    at = max(event.at.timestamp() for event in events)
                    return [Prepared(observer, first, at, None) for observer in wanted]
                # One failing transaction must not cost the others of the batch.
                parts = [[*part] for _, part in groupby(events, lambda event: event.xid)]
                return [each for part in parts for each in await self._prepared(labels, part)]
            outage.log_recovery()
            return prepared

    def _deliver(self, prepared: Iterable[Prepared]) -> None:
        for each in prepared:
            if each.message is None:
                self._reset_observer(each.observer, UNRESOLVED, (each.xid, each.at))
                continue
            group = each.message["group"]
            for member in self.members.get(each.observer, {}).get(group, {}).values():
                member.consumer.inbox.put(
                    each.observer.func.__qualname__, partial(_deliver_message, member, each)
                )

    def _reset(self, labels: frozenset[str], reset: Reset) -> None:
        names = ", ".join(sorted(labels))
        logger.warning(
            "Events of %s in database %r may be missing: %s. Subscribers receive a reset.",
            *(names, self._alias, reset.why),
            extra=fields(model=names, alias=self._alias),
        )
        for observer in self.members:
            if observer.sources.labels == labels:
                self._reset_observer(observer, str(reset.why))

    def _reset_observer(
        self, observer: EventObserver, reason: str, written: tuple[int, float] | None = None
    ) -> None:
        for group, members in self.members.get(observer, {}).items():
            for member in members.values():
                call = partial(_deliver_reset, member, observer, group, reason, written)
                member.consumer.inbox.put(observer.func.__qualname__, call)


async def _deliver_message(member: GroupMember, prepared: Prepared) -> None:
    """Call the handler of a socket, if the event is after the start of one of its subscriptions."""
    await member.known.wait()
    ids = member.ids_for((prepared.xid, prepared.at))
    if ids:
        member.delivering = ids
        await prepared.observer(prepared.own_message(), consumer=member.consumer)


async def _deliver_reset(
    member: GroupMember,
    observer: EventObserver,
    group: str,
    reason: str,
    written: tuple[int, float] | None,
) -> None:
    await member.known.wait()
    member.delivering = member.ids_for(written)
    if member.delivering:
        await observer.send_reset(member.consumer, group, reason)


class Outage:
    """An outage of the database that events wait for; logs the loss once, and the recovery."""

    def __init__(self, labels: frozenset[str], events: Sequence[Event], alias: str) -> None:
        names, first = ", ".join(sorted(labels)), events[0].xid
        self.about = fields(model=names, alias=alias, transaction=first)
        self._names = (len(events), names, first, alias)
        self._since: float | None = None

    def log(self, error: Exception) -> None:
        if self._since is None:
            self._since = time.monotonic()
            logger.warning(
                "%d events of %s, from transaction %s on, wait for database %r: %s",
                *(*self._names, error),
                extra=self.about,
            )

    def log_recovery(self) -> None:
        if self._since is not None:
            logger.warning(
                "%d events of %s, from transaction %s on, are delivered: database %r answers again "
                "after %.1f s.",
                *(*self._names, time.monotonic() - self._since),
                extra=self.about,
            )


_dispatchers: WeakKeyDictionary[Feed, Dispatcher] = WeakKeyDictionary()


def dispatcher(alias: str) -> Dispatcher:
    """Return the dispatcher of the running event loop for a database alias."""
    feed = feed_of(alias)
    if feed not in _dispatchers:
        _dispatchers[feed] = Dispatcher(feed)
    return _dispatchers[feed]


async def join(
    observer: EventObserver, consumer: AsyncAPIConsumer, groups: list[str], request_id: Any
) -> None:
    """Subscribe a socket to groups of an observer; ``EventsNotObserved`` or ``FeedDown`` if that fails."""
    name = _UNNAMED if request_id is None else request_id
    of_alias = dispatcher(router.db_for_write(observer.model_cls))
    try:
        await of_alias.join(observer, consumer, groups, name)
    except FeedUnavailable as error:
        raise FeedDown(str(error)) from error


def leave(
    observer: EventObserver, consumer: AsyncAPIConsumer, groups: list[str], request_id: Any
) -> list[str]:
    """
    End the subscription with a request id; without one, all of the socket's.

    Returns:
        The groups that the socket has left.
    """
    of_alias = dispatcher(router.db_for_write(observer.model_cls))
    of_alias.leave(observer, consumer, groups, request_id)
    return [each for each in groups if of_alias.find(observer, consumer, each) is None]


def delivered_ids(observer: EventObserver, consumer: AsyncAPIConsumer, group: str) -> list[Any]:
    """Return the request ids that receive the event being handled."""
    of_alias = dispatcher(router.db_for_write(observer.model_cls))
    member = of_alias.find(observer, consumer, group)
    return [] if member is None else [each for each in member.delivering if each is not _UNNAMED]


def _start_point(alias: str) -> StartPoint:
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT pg_catalog.pg_current_snapshot()::text, "
            "extract(epoch FROM pg_catalog.clock_timestamp())::float8"
        )
        text, at = cursor.fetchone()
        return StartPoint(Snapshot.parse(text), at)
