"""
Builds the read side and owns it: one runtime for an event loop, one feed for a database alias.

A feed starts with its first subscription and ends a moment after its last. It needs no lifespan
event, which not every server has, and no channel layer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from contextvars import Context
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakMethod, WeakSet

from django.db import connections

from pgobserve.database.connection_watchdog import Unreachable
from pgobserve.database.server_identity import Servers
from pgobserve.errors import FeedUnavailable
from pgobserve.hub.backlog import Backlog, untold
from pgobserve.hub.hub import Hub
from pgobserve.hub.snapshot import Snapshot
from pgobserve.listen.fence import Fence
from pgobserve.listen.intake import FLOOD_INTERVAL, Intake, routes
from pgobserve.listen.listener import QUEUE_NEARLY_FULL, Listener
from pgobserve.listen.trigger_monitor import TriggerMonitor
from pgobserve.load.loader import Loader
from pgobserve.load.row_reader import CheckedReader
from pgobserve.logs import fields
from pgobserve.outbox.cursor import Progress
from pgobserve.outbox.event_subscriptions import EventSubscription, EventSubscriptions
from pgobserve.outbox.outbox_page import WAKE_UP
from pgobserve.outbox.outbox_reader import Reader, ReaderOptions
from pgobserve.sql.installed import is_observed
from pgobserve.sql.keyed_query import SNAPSHOT
from pgobserve.wire import FENCE, PAYLOAD_VERSION
from pgobserve.workers.held_threads import ThreadHeld
from pgobserve.workers.loop_tripwire import at_close
from pgobserve.workers.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from pgobserve.hub.change import Change
    from pgobserve.hub.hub import TableDependencies
    from pgobserve.hub.list_subscription import ListItemUpdate, ListSubscription
    from pgobserve.hub.send_queue import RowSubscription
    from pgobserve.outbox.event_subscriptions import Callback
    from pgobserve.runtime.feed_options import Options
    from pgobserve.workers.supervisor import Work

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

#: Seconds that a request waits for the LISTEN connection.
LIVE_TIMEOUT: Final = 10.0

#: Seconds for which "the table has its triggers" is believed without asking again.
INSTALLED_TTL: Final = 60.0


class Feed:
    """What listens, reads and loads for one database alias, and when it runs."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.hub = Hub()
        self._servers = Servers()
        self._intake = Intake(self.hub, self._ignore, self._kick)
        self.vigil = TriggerMonitor(
            *(self.hub.tables, self._has_triggers, self._read_again), alias=options.alias
        )
        self.listener: Listener | None = None
        self.reader: Reader | None = None
        self.loader: Loader | None = None
        self.fence = Fence(
            self._send_mark, self._reached, listens=options.listens, alias=options.alias
        )
        self._followers = EventSubscriptions()
        self._users = 0
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._stop: asyncio.TimerHandle | None = None
        self._again: asyncio.TimerHandle | None = None
        self._installed: dict[tuple[str, bool], float] = {}
        # Tables that were found in a database session of their own; here they may be missing.
        self._elsewhere: set[str] = set()

    async def call(self, function: Callable[[], Result], *, owner: type | None = None) -> Result:
        """
        Run a function that needs the database off the event loop, in a thread of the feed.

        Args:
            function: What to run.
            owner: The class whose hooks it runs, if it runs any.

        Raises:
            FeedUnavailable: The database can't be reached; or a hook does not return, or the
                owner's hooks hold too many threads already.
        """
        with self._in_use() as loader:
            try:
                return await loader.call(function, owner=owner)
            except Unreachable as error:
                raise FeedUnavailable(f"The database can't be reached: {error}") from error
            except ThreadHeld as error:
                raise FeedUnavailable(str(error)) from error

    async def is_observed(
        self,
        tables: Sequence[str],
        *,
        outbox: bool = False,
        within: Callable[[], AbstractContextManager[object]] | None = None,
    ) -> bool:
        """
        Tell whether all the tables have their triggers, and they write to the outbox, too.

        Args:
            tables: Their names.
            outbox: Whether they must write to the outbox.
            within: Surrounds the look, with a ``search_path`` of its own.
        """
        if within is not None:
            self._elsewhere.update(tables)
            return await self.call(lambda: self._ask_within(tables, outbox, within))
        now = time.monotonic()
        unsure = [
            table
            for table in tables
            if now - self._installed.get((table, outbox), -INSTALLED_TTL) >= INSTALLED_TTL
        ]
        for table in unsure:
            if not await self.call(lambda table=table: self._ask(table, outbox)):  # type: ignore[misc]
                return False
            self._installed[table, outbox] = now
        return True

    async def begin(self, watch: RowSubscription, subject: TableDependencies) -> None:
        """
        Begin a subscription; its row is read next.

        Raises:
            FeedUnavailable: The LISTEN connection is not there and did not come in time.
        """
        with self._in_use():
            await self._wait_until_live()
            self.hub.add(watch, subject)
            self._start().kick()  # it may have failed and been replaced meanwhile

    async def follow(self, labels: Collection[str], callback: Callback) -> EventSubscription:
        """
        Follow the events of tables whose changes go to the outbox.

        What is visible when this is called may or may not be told; all that is not visible when it
        has returned is. Each event is told at least once, and once unless this process is ended;
        in commit order for each row; those of a transaction together.

        Args:
            labels: The labels of the tables' models, in lower case.
            callback: Called in the event loop with events, and with resets where some may be
                missing; must not block. What it returns is awaited before more is read. The
                instances are shared with others who follow.

        Returns:
            The one who follows; until it is closed, the feed runs.

        Raises:
            FeedUnavailable: The outbox can't be read and could not in time.
        """
        follow = EventSubscription(labels, callback, self._unfollow)
        self._followers.add(follow)
        try:
            self._start()
            assert self.reader is not None  # noqa: S101 (_start makes it)
            self.reader.wake()
            async with asyncio.timeout(LIVE_TIMEOUT):
                await follow.started.wait()
        except TimeoutError as error:
            follow.close()
            reason = self.reader.state.error if self.reader else None
            raise FeedUnavailable(
                f"Events can't be followed now: {reason or 'there is no outbox yet'}"
            ) from error
        except BaseException:
            follow.close()
            raise
        return follow

    def _unfollow(self, follow: EventSubscription) -> None:
        self._followers.discard(follow)
        self._rest()

    async def begin_list(
        self,
        watch: ListSubscription,
        subject: TableDependencies,
        identity: Hashable,
        *,
        single: bool = False,
    ) -> None:
        """
        Begin a subscription to a list, which is read next.

        Args:
            watch: The subscription.
            subject: What kind of rows are on it.
            identity: What tells the list from others of these rows.
            single: It can only be read as a whole.

        Raises:
            FeedUnavailable: The LISTEN connection is not there and did not come in time.
        """
        with self._in_use():
            await self._wait_until_live()
            self.hub.add_list(watch, subject, identity, single=single)
            self._start().kick()

    def end(self, watch: RowSubscription | ListSubscription) -> None:
        """End a subscription; an unknown one is no error."""
        self.hub.discard(watch)
        self._rest()

    async def delivered(self, watches: Collection[RowSubscription | ListSubscription]) -> None:
        """
        Return when all that is marked now for some subscriptions has been read and delivered.

        Delivered means handed to their mailboxes. Loads that the database refuses for now are
        repeated, and waited for.
        """
        backlog = Backlog(self.hub, watches)
        while (thing := backlog.waits_for()) is not None:
            await self._progress_of(thing)

    async def retried(self, watches: Collection[RowSubscription | ListSubscription]) -> bool:
        """
        Wait for a load that failed and left one of the subscriptions without any frame.

        Returns:
            Whether there was one; what it found may still have to be delivered.
        """
        failing = [] if self.loader is None else self.loader.failing
        # Mostly none is.
        found = untold(failing, self.hub, watches) if failing else ()
        if found:
            await self._progress_of(found[0])
        return bool(found)

    async def _progress_of(self, thing: Hashable) -> None:
        progress = asyncio.Event()
        callback = progress.set
        self.hub.watch_progress(thing, callback)
        try:
            await progress.wait()
        finally:
            self.hub.forget_progress(thing, callback)

    def read_again(self, told: RowSubscription | ListItemUpdate) -> None:
        """Have a row read for a client that has not received it yet."""
        self.hub.read_again(told)
        if self.loader is not None:
            self.loader.kick()

    @property
    def running(self) -> bool:
        """Whether it listens and loads, or tries to."""
        return self._task is not None and not self._task.done()

    @property
    def reads_outbox(self) -> bool:
        """Whether it reads the outbox, or tries to: because it must, or since it was woken."""
        state = self.reader.state if self.reader is not None else None
        return self.options.outbox or (
            state is not None and (state.live or state.error is not None)
        )

    async def aclose(self) -> None:
        """Stop now; its tasks, threads and connections have ended when this returns."""
        self._cancel_timers()
        self.fence.close()
        self._end_task()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def abandon(self) -> None:
        """Cut the connections of a feed whose event loop was closed; may be called in any thread."""
        if self.loader is not None:
            self.loader.abandon()
        for each in (self.listener, self.reader):
            if each is not None:
                each.abandon()

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[Loader]:
        self._users += 1
        try:
            yield self._start()
        finally:
            self._users -= 1
            self._rest()

    def _start(self) -> Loader:
        self._cancel_timers()
        if self._task is not None and not self._task.done() and self.loader is not None:
            return self.loader
        options = self.options
        sources = CheckedReader(options.reader, options.alias, self._servers, self._doubt_in_loop())
        self.loader = loader = Loader(
            *(options.alias, self.hub, sources, options.threads),
            timeout=options.hook_timeout,
            statement_timeout=options.statement_timeout,
            lost=self._read_again,
        )
        self.reader = self._make_reader(loader)
        self.listener = (
            Listener(
                options.parameters,
                options.channel,
                self._on_change,
                self._on_live,
                alias=options.alias,
                skim=self._intake.skim,
                servers=self._servers,
            )
            if options.listens
            else None
        )
        self._task = asyncio.create_task(
            self._run(self.listener, self.reader, loader),
            name=f"pgobserve-feed-{options.alias}",
            # Not that of the socket whose request started it.
            context=Context(),
        )
        self._task.add_done_callback(lambda task: self._ended(task, loader))
        return loader

    def _doubt_in_loop(self) -> Callable[[], object]:
        """Return what a loader's thread calls when new connections reach another server."""
        loop = asyncio.get_running_loop()

        def doubt() -> None:
            if self.listener is not None:
                self.listener.reconnect()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(doubt)

        return tell

    def _make_reader(self, loader: Loader) -> Reader:
        options = self.options
        wanted = ReaderOptions(
            parameters=options.parameters,
            on_change=self._on_change,
            on_gap=self._read_again,
            call=loader.call,
            poll=not options.listens,
            retention=options.retention,
            routes=lambda: routes(self.hub),
            run=lambda: self._servers.run,
            namespace=options.namespace,
            alias=options.alias,
        )
        return Reader(wanted, self._followers)

    async def _run(self, listener: Listener | None, reader: Reader, loader: Loader) -> None:
        at_once = self.options.outbox or len(self._followers) > 0
        works: dict[str, Work] = {
            "pgobserve-reader": lambda: reader.run(at_once=at_once),
            "pgobserve-loader": loader.run,
            "pgobserve-vigil": self.vigil.run,
        }
        if listener is not None:
            works["pgobserve-listener"] = listener.run
        alias = self.options.alias
        supervisor = Supervisor(f"the feed of database {alias!r}", self._read_again, alias=alias)
        await supervisor.run(works)

    def _ended(self, task: asyncio.Task[None], loader: Loader) -> None:
        loader.stop()
        self._ending.discard(task)
        if self._task is task:
            # Nothing of the feed ends it like this; where the event loop goes on, it is wanted.
            self._task = None
            if self._wanted and not task.get_loop().is_closed():
                self._again = task.get_loop().call_later(1.0, self._restart)
        if self.loader is loader:
            # They know the event loop, which must not be kept by what is known of it.
            self.loader = self.reader = self.listener = None
            if not self._followers:
                self._followers.progress = Progress()

    def _restart(self) -> None:
        self._again = None
        if self._wanted and not self.running:
            logger.critical(
                "The task of the feed of database %r was ended by other code.",
                self.options.alias,
                extra=fields(alias=self.options.alias),
            )
            self._start()
            again = self._read_again()
            logger.critical(
                "The feed of database %r was started again; %s.",
                *(self.options.alias, again),
                extra=fields(alias=self.options.alias),
            )

    @property
    def _wanted(self) -> bool:
        return len(self.hub) > 0 or len(self._followers) > 0

    def _end_task(self) -> None:
        task, self._task = self._task, None
        if task is not None and not task.done():
            self._ending.add(task)
            task.cancel()

    def _cancel_timers(self) -> None:
        for timer in (self._stop, self._again):
            if timer is not None:
                timer.cancel()
        self._stop = self._again = None

    def _rest(self) -> None:
        if self._users or self._wanted or self._task is None or self._stop is not None:
            return
        loop = asyncio.get_running_loop()
        self._stop = loop.call_later(self.options.linger, self._stop_now)

    def _stop_now(self) -> None:
        self._stop = None
        if not self._users and not self._wanted:
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

    def _ask_within(
        self,
        tables: Sequence[str],
        outbox: bool,
        within: Callable[[], AbstractContextManager[object]],
    ) -> bool:
        with within():
            return all(self._ask(table, outbox) for table in tables)

    def _ask(self, table: str, outbox: bool) -> bool:
        options = self.options
        return is_observed(
            table,
            connections[options.alias],
            namespace=options.namespace,
            outbox=outbox,
            channel=options.channel,
        )

    def _on_change(self, change: Change) -> None:
        if change.label == WAKE_UP:
            if self.reader is not None:
                self.reader.wake()
        elif change.label == FENCE:
            self.fence.receive(change.keys)
        elif self._intake.route(change):
            self._kick()

    async def _send_mark(self, name: str) -> Snapshot:
        """Send a mark of :attr:`fence`; return the snapshot of its statement."""
        with self._in_use():
            if self.listener is not None:
                await self.listener.live.wait()
            text, usage = await self.call(lambda: self._ask_for_mark(name))
        heartbeat = 0.0 if self.listener is None else self.listener.state.queue_usage
        if self.options.listens and max(usage, heartbeat) >= QUEUE_NEARLY_FULL:
            # Triggers may have kept silent, so that writers could commit; see `Listener`.
            self.hub.publish_gap()
            self._kick()
        return Snapshot.parse(text)

    def _ask_for_mark(self, name: str) -> tuple[str, float]:
        options = self.options
        with connections[options.alias].cursor() as cursor:
            if not options.listens:
                cursor.execute(f"SELECT {SNAPSHOT}, 0::float8")
                return cursor.fetchone()  # type: ignore[no-any-return]
            mark = {"v": PAYLOAD_VERSION, "t": FENCE, "o": "I", "x": "0", "k": [name]}
            cursor.execute(
                f"SELECT {SNAPSHOT}, pg_catalog.pg_notification_queue_usage(), "
                "pg_catalog.pg_notify(%s, %s)",
                [options.channel, json.dumps(mark)],
            )
            text, usage, _ = cursor.fetchone()
            return text, usage

    async def _reached(self, snapshot: Snapshot) -> None:
        if self.reader is not None:
            await self.reader.reach(snapshot)
        if self._intake.behind:
            # Each table in a flood is marked before this returns: its timer began earlier.
            await asyncio.sleep(FLOOD_INTERVAL)

    def _ignore(self, why: str) -> None:
        if self.listener is not None:
            self.listener.ignore(why)

    def _on_live(self, gap: bool) -> str:
        self._installed.clear()
        # A first listener has no gap, but its feed has one if it failed or was closed before.
        again = self._read_again()
        if self.reader is not None and self.reader.state.live:
            # Wake-ups may have been missed, too. And its connection may lead to an old primary.
            self.reader.wake()
        return again

    async def _has_triggers(self, table: str) -> bool:
        if self.loader is None:
            raise Unreachable("the feed is being stopped")
        observed = await self.loader.call(lambda: self._ask(table, False))
        return observed or table in self._elsewhere

    def _read_again(self) -> str:
        """Have everything watched read again; return how much that is, for the log."""
        rows, lists = self.hub.publish_gap()
        self.fence.restart()
        self._kick()
        return f"{rows} rows and {lists} lists are read again"

    def _kick(self) -> None:
        if self.loader is not None:
            self.loader.kick()


class Runtime:
    """The feeds of one event loop."""

    def __init__(self) -> None:
        self.feeds: dict[str, Feed] = {}
        self.process = os.getpid()

    def feed(self, alias: str, options: Callable[[str], Options]) -> Feed:
        """Return the feed of a database alias, made at the first call."""
        if alias not in self.feeds:
            self.feeds[alias] = Feed(options(alias))
        return self.feeds[alias]

    async def aclose(self) -> None:
        """End all feeds; their connections are closed when this returns."""
        for feed in self.feeds.values():
            await feed.aclose()

    def abandon(self) -> None:
        """Let go of what the event loop can't end any more, since it is closed."""
        _runtimes.discard(self)
        for feed in self.feeds.values():
            feed.abandon()


#: Of all event loops. Each loop has its own as an attribute, so that both end together.
_runtimes: WeakSet[Runtime] = WeakSet()

_ATTRIBUTE: Final = "_pgobserve_runtime"


def current() -> Runtime:
    """Return the running event loop's runtime; it ends with the loop."""
    loop = asyncio.get_running_loop()
    runtime: Runtime | None = getattr(loop, _ATTRIBUTE, None)
    # After a fork threads and connections are the parent's.
    if runtime is None or runtime.process != os.getpid():
        runtime = Runtime()
        setattr(loop, _ATTRIBUTE, runtime)
        _runtimes.add(runtime)
        at_close(loop, WeakMethod(runtime.abandon))
    return runtime


def runtimes() -> list[Runtime]:
    """Return the runtimes of all event loops of this process."""
    return [runtime for runtime in _runtimes if runtime.process == os.getpid()]
