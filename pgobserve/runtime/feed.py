"""Builds the stages of one database alias, and owns them while there are subscriptions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pgobserve.database.connection_watchdog import Unreachable
from pgobserve.database.server_identity import Servers
from pgobserve.errors import FeedUnavailable
from pgobserve.hub.hub import Hub
from pgobserve.hub.snapshot import Snapshot
from pgobserve.listen.fence import Fence, write_mark
from pgobserve.listen.intake import FLOOD_INTERVAL, Intake
from pgobserve.listen.listener import QUEUE_NEARLY_FULL, Listener
from pgobserve.listen.trigger_monitor import TriggerMonitor
from pgobserve.logs import fields
from pgobserve.outbox.cursor import Progress
from pgobserve.outbox.event_subscriptions import EventSubscription, EventSubscriptions
from pgobserve.outbox.outbox_page import WAKE_UP
from pgobserve.runtime.stages import make_listener, make_loader, make_outbox_reader
from pgobserve.runtime.trigger_checks import TriggerChecks
from pgobserve.wire import FENCE
from pgobserve.workers.pool_worker import ThreadHeld
from pgobserve.workers.retrying import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator

    from pgobserve.hub.subscriptions import Deliverable, Subscription
    from pgobserve.load.loader import Loader
    from pgobserve.outbox.event_subscriptions import Callback
    from pgobserve.outbox.outbox_reader import OutboxReader
    from pgobserve.runtime.stages import Options
    from pgobserve.workers.retrying import Work

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

#: Seconds that a request waits for the LISTEN connection.
LIVE_TIMEOUT: Final = 10.0


class Feed:
    """
    The read side of one database alias in one event loop.

    It starts with its first subscription, and ends :attr:`Options.linger` seconds after its last. It
    needs no lifespan event, which not every server sends, and no channel layer.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.hub = Hub()
        self.listener: Listener | None = None
        self.reader: OutboxReader | None = None
        self.loader: Loader | None = None
        self.fence = Fence(
            self._send_mark, self._reached, listens=options.listens, alias=options.alias
        )
        self.triggers = TriggerChecks(options, self.call, self._reread)
        self.trigger_monitor = TriggerMonitor(
            *(self.hub.tables, self._has_triggers, self._reread), alias=options.alias
        )
        self._servers = Servers()
        signals = {WAKE_UP: self._wake_reader, FENCE: self.fence.receive}
        self._intake = Intake(self.hub, self._ignore, self._kick, signals)
        self._event_subscriptions = EventSubscriptions()
        # Requests that use the feed without a subscription yet.
        self._uses = 0
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._stop_timer: asyncio.TimerHandle | None = None
        self._restart_timer: asyncio.TimerHandle | None = None

    async def call(self, function: Callable[[], Result], *, owner: type | None = None) -> Result:
        """
        Run a function that needs the database in a thread of the feed.

        Args:
            owner: The class whose hooks it runs, if it runs any.

        Raises:
            FeedUnavailable: The database can't be reached, a hook does not return, or the owner's
                hooks already hold too many threads.
        """
        with self._in_use() as loader:
            try:
                return await loader.call(function, owner=owner)
            except Unreachable as error:
                raise FeedUnavailable(f"The database can't be reached: {error}") from error
            except ThreadHeld as error:
                raise FeedUnavailable(str(error)) from error

    @contextlib.asynccontextmanager
    async def subscribing(self) -> AsyncIterator[Hub]:
        """
        Yield the hub, for a block that adds subscriptions. The loader reads them next.

        Raises:
            FeedUnavailable: The LISTEN connection did not become live in time.
        """
        with self._in_use():
            await self._wait_until_live()
            yield self.hub
            self._start().kick()  # the loader may have been replaced meanwhile

    async def subscribe_events(
        self, labels: Collection[str], callback: Callback
    ) -> EventSubscription:
        """
        Start a subscription to the events of tables that write to the outbox.

        The subscription receives every event that is not visible yet when this returns, at least once,
        in commit order for each row, and those of a transaction together.

        Args:
            labels: The labels of the tables' models, in lower case.
            callback: Called in the event loop with events, and with resets where events may be
                missing. Must not block. What it returns is awaited before more is read. All
                subscriptions share the instances.

        Returns:
            The subscription. The feed runs until it is closed.

        Raises:
            FeedUnavailable: The outbox could not be read in time.
        """
        subscription = EventSubscription(frozenset(labels), callback, self._unsubscribe_events)
        self._event_subscriptions.add(subscription)
        try:
            self._start()
            assert self.reader is not None  # noqa: S101 (_start makes it)
            self.reader.wake()
            async with asyncio.timeout(LIVE_TIMEOUT):
                await subscription.started.wait()
        except TimeoutError as error:
            subscription.close()
            reason = self.reader.state.error if self.reader else None
            raise FeedUnavailable(
                f"Events can't be followed now: {reason or 'there is no outbox yet'}"
            ) from error
        except BaseException:
            subscription.close()
            raise
        return subscription

    def _unsubscribe_events(self, subscription: EventSubscription) -> None:
        self._event_subscriptions.discard(subscription)
        self._stop_if_unused()

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription. An unknown subscription is no error."""
        self.hub.discard(subscription)
        self._stop_if_unused()

    def read_again(self, item: Deliverable) -> None:
        """Read a row again for a client that has not received it yet."""
        self.hub.read_again(item)
        if self.loader is not None:
            self.loader.kick()

    @property
    def running(self) -> bool:
        """Whether the feed listens and loads, or tries to."""
        return self._task is not None and not self._task.done()

    @property
    def reads_outbox(self) -> bool:
        """Whether the feed reads the outbox, or tries to: by its options, or since a wake-up."""
        state = self.reader.state if self.reader is not None else None
        return self.options.outbox or (
            state is not None and (state.live or state.error is not None)
        )

    async def aclose(self) -> None:
        """Stop now. Tasks, threads and connections have ended when this returns."""
        self._cancel_timers()
        self.fence.close()
        self._end_task()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def abandon(self) -> None:
        """Cut the connections, because the event loop was closed. Any thread may call this."""
        if self.loader is not None:
            self.loader.abandon()
        for each in (self.listener, self.reader):
            if each is not None:
                each.abandon()

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[Loader]:
        self._uses += 1
        try:
            yield self._start()
        finally:
            self._uses -= 1
            self._stop_if_unused()

    def _start(self) -> Loader:
        self._cancel_timers()
        if self._task is not None and not self._task.done() and self.loader is not None:
            return self.loader
        options = self.options
        self.loader = loader = make_loader(
            *(options, self.hub, self._servers),
            reconnect=partial(self._reconnect_soon, asyncio.get_running_loop()),
            lost=self._reread,
        )
        self.reader = make_outbox_reader(
            *(options, self.hub, self._servers, self._intake, loader),
            *(self._event_subscriptions, self._reread),
        )
        self.listener = make_listener(options, self._intake, self._servers, self._on_live)
        self._task = asyncio.create_task(
            self._run(self.listener, self.reader, loader),
            name=f"pgobserve-feed-{options.alias}",
            # An empty context, instead of that of the request that started the feed.
            context=Context(),
        )
        self._task.add_done_callback(lambda task: self._ended(task, loader))
        return loader

    def _reconnect_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Connect the listener anew, because new connections of a loader thread reach another server."""
        with contextlib.suppress(RuntimeError):  # the loop may be closed
            loop.call_soon_threadsafe(self._reconnect)

    def _reconnect(self) -> None:
        if self.listener is not None:
            self.listener.reconnect()

    async def _run(self, listener: Listener | None, reader: OutboxReader, loader: Loader) -> None:
        at_once = self.options.outbox or len(self._event_subscriptions) > 0
        works: dict[str, Work] = {
            "pgobserve-reader": lambda: reader.run(at_once=at_once),
            "pgobserve-loader": loader.run,
            "pgobserve-trigger-monitor": self.trigger_monitor.run,
        }
        if listener is not None:
            works["pgobserve-listener"] = listener.run
        alias = self.options.alias
        supervisor = Supervisor(f"the feed of database {alias!r}", self._reread, alias=alias)
        await supervisor.run(works)

    def _ended(self, task: asyncio.Task[None], loader: Loader) -> None:
        loader.stop()
        self._ending.discard(task)
        if self._task is task:
            # The feed itself ends its task elsewhere. Other code cancelled it.
            self._task = None
            if self._wanted and not task.get_loop().is_closed():
                self._restart_timer = task.get_loop().call_later(1.0, self._restart)
        if self.loader is loader:
            # They refer to the event loop, and must not keep it alive.
            self.loader = self.reader = self.listener = None
            if not self._event_subscriptions:
                self._event_subscriptions.progress = Progress()

    def _restart(self) -> None:
        self._restart_timer = None
        if self._wanted and not self.running:
            self._start()
            logger.critical(
                "The task of the feed of database %r was ended by other code. The feed was started again; %s.",
                *(self.options.alias, self._reread()),
                extra=fields(alias=self.options.alias),
            )

    @property
    def _wanted(self) -> bool:
        return bool(len(self.hub) or len(self._event_subscriptions))

    def _end_task(self) -> None:
        task, self._task = self._task, None
        if task is not None and not task.done():
            self._ending.add(task)
            task.cancel()

    def _cancel_timers(self) -> None:
        for timer in (self._stop_timer, self._restart_timer):
            if timer is not None:
                timer.cancel()
        self._stop_timer = self._restart_timer = None

    def _stop_if_unused(self) -> None:
        if self._uses or self._wanted or self._task is None or self._stop_timer is not None:
            return
        loop = asyncio.get_running_loop()
        self._stop_timer = loop.call_later(self.options.linger, self._stop_unused)

    def _stop_unused(self) -> None:
        self._stop_timer = None
        if not self._uses and not self._wanted:
            self._end_task()

    async def _wait_until_live(self) -> None:
        reader = self.reader if self.options.outbox else None
        for each in (self.listener, reader):
            if each is None or each.live.is_set():
                continue
            try:
                async with asyncio.timeout(LIVE_TIMEOUT):
                    await each.live.wait()
            except TimeoutError as error:
                raise FeedUnavailable(
                    f"Changes can't be followed now: {each.state.error or 'no connection yet'}"
                ) from error

    async def _send_mark(self, name: str) -> Snapshot:
        """Send a mark of :attr:`fence`, and return the snapshot of its statement."""
        with self._in_use():
            if self.listener is not None:
                await self.listener.live.wait()
            channel = self.options.channel if self.options.listens else None
            snapshot, usage = await self.call(lambda: write_mark(self.options.alias, channel, name))
        heartbeat = 0.0 if self.listener is None else self.listener.state.queue_usage
        if self.options.listens and max(usage, heartbeat) >= QUEUE_NEARLY_FULL:
            # With a full queue triggers do not notify, so that writers can commit; see `Listener`.
            self.hub.publish_gap()
            self._kick()
        return Snapshot.parse(snapshot)

    async def _reached(self, snapshot: Snapshot) -> None:
        if self.reader is not None:
            await self.reader.reach(snapshot)
        if self._intake.behind:
            # The intake marks each table in a flood meanwhile: its timer started earlier.
            await asyncio.sleep(FLOOD_INTERVAL)

    def _ignore(self, reason: str) -> None:
        if self.listener is not None:
            self.listener.ignore(reason)

    def _on_live(self, gap: bool) -> str:
        self.triggers.forget()
        # A first listener has no gap. The feed has one if it failed or was closed before.
        again = self._reread()
        if self.reader is not None and self.reader.state.live:
            # The feed may have missed wake-ups, and the reader may be connected to an old primary.
            self.reader.wake()
        return again

    async def _has_triggers(self, table: str) -> bool:
        if self.loader is None:
            raise Unreachable("the feed is being stopped")
        return await self.triggers.check(table) or self.triggers.is_elsewhere(table)

    def _reread(self) -> str:
        """Read everything watched again; return how much that is, for the log."""
        rows, lists = self.hub.publish_gap()
        self.fence.restart()
        self._kick()
        return f"{rows} rows and {lists} lists are read again"

    def _wake_reader(self, _: tuple[Any, ...] | None) -> None:
        if self.reader is not None:
            self.reader.wake()

    def _kick(self) -> None:
        if self.loader is not None:
            self.loader.kick()
