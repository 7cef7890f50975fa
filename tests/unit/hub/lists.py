"""
Lists, driven in any order: each frame fits what the client has, and in the end he has the truth.

As in :mod:`tests.unit.hub.test_convergence` transactions overlap, notifications are under way and
can be lost, and clients read when they like. Here they have lists: those of several clients share
what is read, a client may see other rows than the others, and from one moment to the next those of
another list; changes elsewhere are led back to rows; and a client may break off at any frame and
come back, to its own list or another one, with the etags of what it holds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pgobserve.deliver.delivery import Delivery
from pgobserve.deliver.send_queue import SendQueue
from pgobserve.hub.hub import Hub, ReverseLookup, TableDependencies
from pgobserve.hub.identity import digest_from
from pgobserve.hub.list_deliveries import ListRowChange, deliveries
from pgobserve.hub.list_state import ListRow, ListState
from pgobserve.hub.load_requests import (
    FAILED,
    NEVER,
    ListLoadRequest,
    ListLoadResult,
    LoadRequest,
    LoadResult,
)
from pgobserve.hub.outcome import ABSENT, Outcome, Refusal, View
from pgobserve.hub.snapshot import Snapshot
from pgobserve.hub.subscriptions import ListSnapshot, ListSubscription
from pgobserve.load.batches import Batches
from pgobserve.load.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable


@dataclass(frozen=True)
class Way:
    """A link: ``b`` is referred to, rows of ``c`` refer to a row."""

    table: str
    column: str | None


PLAIN = TableDependencies(("a",))
WIDE = TableDependencies(("a",), ("w",))
LINKED = TableDependencies(("a",), (), (Way("b", None), Way("c", "a_id")))  # type: ignore[arg-type]
TABLES = ("a", "b", "c", "w")
TOO_MANY = Refusal(413, ("Too many.",))


@dataclass(frozen=True)
class Selection:
    """A list: of which rows, and by which condition; or only their number."""

    subject: TableDependencies
    condition: str
    counts: bool = False


@dataclass(eq=False)
class Context:
    """What a subscription is about, what it must not see, and how it shows rows."""

    client: Client
    selection: Selection
    hidden: int | None
    own: bool
    back: dict[int | None, str] | None = None
    has: dict[int | None, str] = field(default_factory=dict)
    unsure: set[int | None] = field(default_factory=set)


class Client:
    """A socket, and what its frames tell."""

    def __init__(self, at_once: bool) -> None:
        self.awake = False
        self.held = 0
        self.waiting: set[ListSubscription] = set()
        self.send_queue = SendQueue(self._wake, self._send if at_once else None)

    def _wake(self) -> None:
        assert not self.awake, "a second writer"
        self.awake = True

    def _send(self, item: Any) -> None:
        self._wake()
        self._receive(item)

    def write(self, frames: int | None = None) -> None:
        """Let the writer send some frames, or all."""
        while self.awake and frames != 0:
            item = self.send_queue.take()
            if item is None:
                self.awake = False
                return
            self._receive(item)
            frames = None if frames is None else frames - 1

    def _receive(self, item: Any) -> None:
        member, outcome, kind = item
        assert member.active, "a frame of an ended subscription"
        assert self.held == 0, "a frame while held"
        mine: Context = member.context
        key = member.key
        if isinstance(outcome, Refusal):
            assert kind == "error"
            mine.unsure.add(key)
            return
        if key not in mine.unsure:
            assert mine.has.get(key) != outcome.body, "a frame without news"
        mine.unsure.discard(key)
        if kind == "create":
            assert key not in mine.has, "a double"
        else:
            assert key in mine.has, f"{kind} of what is not there"
        if outcome.body is None:
            assert kind == "delete"
            del mine.has[key]
        else:
            assert kind != "delete"
            mine.has[key] = outcome.body


def deliver(
    roster: ListState,
    key: Any,
    outcome: Outcome,
    special: Any,
    watches: Iterable[ListSubscription],
    **options: Any,
) -> None:
    """Deliver what a load found of a row."""
    change = ListRowChange(key, outcome, special, **options)
    for some, had, each, kind in deliveries(roster, change, watches):
        for watch in some:
            watch.put(key, had, each, kind)


@dataclass(eq=False)
class Transaction:
    xid: int
    writes: list[tuple[str, int, int | None]] = field(default_factory=list)


@dataclass(eq=False)
class Reading:
    """A load: what it is about, what it found, and how far it has been told."""

    jobs: list[LoadRequest] | ListLoadRequest
    found: list[LoadResult] | ListLoadResult | None = None
    telling: Coroutine[Any, Any, None] | None = None


class Repeats:
    """Things that are to be read again after a while."""

    def __init__(self) -> None:
        self.things: dict[Any, None] = {}

    def __contains__(self, thing: Any) -> bool:
        return thing in self.things

    def reported(self, thing: Any) -> bool:
        return thing in self.things

    def failed(self, thing: Any, *, locked: bool = False) -> bool:
        self.things[thing] = None
        return not locked

    def succeeded(self, thing: Any) -> None:
        self.things.pop(thing, None)


def without_threads(hub: Hub) -> Any:
    """Return a loader that reads nothing by itself."""
    loader: Any = object.__new__(Loader)
    loader._hub = hub
    loader._retries = Repeats()
    loader._delivery = Delivery(hub, loader._retries)
    none: Any = None
    loader._batches = Batches(hub, none, none, loader._delivery, none, none, none)
    loader.kick = lambda: None
    return loader


class World:
    def __init__(self) -> None:
        self.hub = Hub()
        self.loader = without_threads(self.hub)
        self.tables: dict[str, dict[int, int]] = {name: {} for name in TABLES}
        self.versions: dict[int, int] = {}
        self.touched: dict[tuple[TableDependencies, int], set[int]] = {}
        self.next_xid = 3
        self.running: dict[int, Transaction] = {}
        self.listening = True
        self.on_the_way: deque[Any] = deque()
        self.reading: list[Reading] = []
        self.tracing: list[ReverseLookup] = []
        self.everyone: list[Client] = []
        self.watched: dict[ListSubscription, Context] = {}
        self.broken: set[int] = set()

    def begin(self, selections: list[Selection], own: bool) -> None:
        """Some rows, and clients who have them: one that reads at once, one that does not."""
        for key in range(3):
            self.write("a", key, key)
        self.everyone = [Client(True), Client(False)]
        for number, selection in enumerate(selections):
            self._subscribe(Context(self.everyone[number % 2], selection, None, own))
        self._rest()

    # What there is

    def snapshot(self) -> Snapshot:
        running = frozenset(self.running)
        return Snapshot(min(running, default=self.next_xid), self.next_xid, running)

    def has(self, selection: Selection, key: int) -> bool:
        value = self.tables["a"].get(key)
        if selection.condition == "even" and selection.subject is LINKED:
            return value is not None and self.tables["b"].get(key // 2, 1) % 2 == 0
        return value is not None and (selection.condition == "all" or value % 2 == 0)

    def look(self, subject: TableDependencies, key: int, own: bool) -> str:
        text = f"{key}:{self.tables['a'][key]}{' for you' if own else ''}"
        if subject is WIDE:
            return f"{text} {sorted(self.tables['w'].items())}"
        if subject is LINKED:
            children = [each for each, value in self.tables["c"].items() if value == key]
            return f"{text} {self.tables['b'].get(key // 2)} {sorted(children)}"
        return text

    def outcome(self, selection: Selection, key: int, mine: Context | None) -> Outcome:
        """Return how a row is seen by one subscription; without one, by those with nothing special."""
        if not self.has(selection, key) or (mine is not None and key == mine.hidden):
            return ABSENT
        if key in self.broken:
            return FAILED
        return View.of(self.look(selection.subject, key, mine is not None and mine.own))

    def number(self, selection: Selection, mine: Context | None) -> Outcome:
        keys = [key for key in self.tables["a"] if self.has(selection, key)]
        return View.of(f"{len([k for k in keys if mine is None or k != mine.hidden])}")

    def truth(self, mine: Context) -> dict[int | None, str]:
        selection = mine.selection
        seen: dict[int | None, Outcome] = {
            key: self.outcome(selection, key, mine) for key in self.tables["a"]
        }
        if selection.counts:
            seen = {None: self.number(selection, mine)}
        return {k: o.body for k, o in seen.items() if isinstance(o, View) and o.body is not None}

    # The server

    def write(self, table: str, key: int, value: int | None) -> None:
        """A transaction of its own."""
        transaction = self._begin_transaction()
        transaction.writes.append((table, key, value))
        self._commit(transaction, "all")

    def write_more(self, which: int, table: str, key: int, value: int | None) -> None:
        """One of several transactions that overlap, perhaps a new one."""
        open_ones = list(self.running.values())
        new = which >= len(open_ones)
        transaction = self._begin_transaction() if new else open_ones[which]
        transaction.writes.append((table, key, value))

    def end_transaction(self, which: int, how: str) -> None:
        transaction = _any(self.running.values(), which)
        if how == "roll back":
            del self.running[transaction.xid]
        else:
            self._commit(transaction, how)

    def _begin_transaction(self) -> Transaction:
        transaction = self.running[self.next_xid] = Transaction(self.next_xid)
        self.next_xid += 1
        return transaction

    def _commit(self, transaction: Transaction, names: str) -> None:
        del self.running[transaction.xid]
        keys: dict[str, list[int]] = {}
        parents: list[int] = []
        for table, key, value in transaction.writes:
            keys.setdefault(table, []).append(key)
            before = self.tables[table].pop(key, None)
            if value is not None:
                self.tables[table][key] = value
            if table == "a":
                self.versions[key] = transaction.xid
            both = [each for each in (before, value) if each is not None]
            if table == "c":
                parents += both
            self._touch(table, key, both, transaction.xid)
        if self.listening:
            for table, named in keys.items():
                routes = {"a_id": parents} if table == "c" and names == "all" else None
                heard = None if names == "nothing" else named
                self.on_the_way.append((table, transaction.xid, heard, routes))

    def _touch(self, table: str, key: int, both: list[int], xid: int) -> None:
        """Note which rows look different, in which lists."""
        touched = {"a": [key], "b": [2 * key, 2 * key + 1], "c": both, "w": range(4)}[table]
        for subject in [PLAIN, WIDE, LINKED]:
            tables = (
                *subject.tables,
                *subject.full_refresh,
                *(path.table for path in subject.paths),
            )
            for each in touched if table in tables else ():
                self.touched.setdefault((subject, each), set()).add(xid)

    # The listener

    def hear(self, count: int) -> None:
        for _ in range(min(count, len(self.on_the_way))):
            heard = self.on_the_way.popleft()
            self.hub.publish(*heard)

    def be_disturbed(self, what: str, table: str, xid: int, key: int | None) -> None:
        """Hear what nobody of ours has sent; or hear nothing for a while."""
        if what == "forged":
            self.hub.publish(table, xid, None if key is None else [key])
        elif self.listening:
            self.listening = False
            self.on_the_way.clear()

    def listen_again(self) -> None:
        self.listening = True
        self.hub.publish_gap()

    # The loader

    def load(self, whole: bool, limit: int, at_once: int) -> None:
        """Take what needs reading, and perhaps read it, and perhaps tell it."""
        for reading in self._take_lists(limit) if whole else self._take(limit):
            if at_once:
                self._read(reading)
            if at_once > 1:
                self._finish(reading)

    def _take(self, limit: int) -> list[Reading]:
        jobs = [LoadRequest(row, row.audience) for row in self.hub.take(limit)]
        assert len(jobs) <= limit
        return self._begun([Reading(jobs)] if jobs else [])

    def _take_lists(self, batch: int) -> list[Reading]:
        rosters = self.hub.take_lists(batch, few=2, limit=2)
        return self._begun(
            [Reading(ListLoadRequest(r, r.audience, tuple(r.newcomers))) for r in rosters]
        )

    def _begun(self, readings: list[Reading]) -> list[Reading]:
        self.reading += readings
        return readings

    def break_or_mend_a_row(self, key: int) -> None:
        """A serializer can't show a row; when it can again, the row itself is as it was."""
        self.broken ^= {key}
        self.hub.publish("a", self.next_xid, [key])

    def _read(self, reading: Reading, refuses: int = 9) -> None:
        if reading.found is not None:
            return
        if isinstance(reading.jobs, ListLoadRequest):
            reading.found = self._read_whole(reading.jobs, refuses)
            return
        snapshot, moved = self.snapshot(), {}
        reading.found = []
        for job in reading.jobs:
            assert isinstance(job.row, ListRow)
            selection: Any = job.row.roster.identity
            moved |= self._moved(job.watches, selection)
            found = self._found(job, selection, snapshot, moved)
            if refuses == 0:
                found = LoadResult(job, NEVER, FAILED, failed=True)
            reading.found.append(found)

    def _moved(self, watches: Any, selection: Selection) -> dict[ListSubscription, Any]:
        return {
            watch: (watch.context.selection.subject, watch.context.selection)
            for watch in watches
            if watch.context.selection != selection
        }

    def _found(
        self, job: LoadRequest, selection: Selection, snapshot: Snapshot, moved: Any
    ) -> LoadResult:
        key: Any = job.key
        see = self.number if selection.counts else lambda s, mine: self.outcome(s, key, mine)
        # Once one has it as nobody else has, everybody does.
        alone = any(watch.context.own for watch in job.watches)
        special = {}
        for watch in job.watches:
            mine = watch.context
            if watch not in moved and (alone or key == mine.hidden or selection.counts):
                special[watch] = see(selection, mine)
        outcome = ABSENT if alone else see(selection, None)
        return LoadResult(job, snapshot, outcome, special, moved=moved)

    def _read_whole(self, whole: ListLoadRequest, refuses: int) -> ListLoadResult:
        selection: Any = whole.roster.identity
        if refuses == 0:
            return ListLoadResult(whole, NEVER, (), refusal=FAILED, failed=True)
        if refuses == 1 and not whole.watches and all(w.on_started for w in whole.newcomers):
            return ListLoadResult(whole, NEVER, (), refusal=TOO_MANY)
        snapshot = self.snapshot()
        moved = self._moved(whole.watches, selection)
        audience = (*(w for w in whole.watches if w not in moved), *whole.newcomers)
        keys: list[Any] = [key for key in self.tables["a"] if self.has(selection, key)]
        rows = [
            self._found(
                LoadRequest(ListRow(whole.roster, key), audience), selection, snapshot, moved
            )
            for key in ([None] if selection.counts else keys)
        ]
        has = {
            watch: {key: digest_from(etag) for key, etag in watch.context.back.items()}
            for watch in whole.newcomers
            if watch.on_started is not None and watch.context.back is not None
        }
        return ListLoadResult(whole, snapshot, rows, has=has, moved=moved)

    def go_on(self, which: int, steps: int, refuses: int) -> None:
        """Read, if that is still to be done, and deliver a part of what was found."""
        reading = _any(self.reading, which)
        self._read(reading, refuses)
        self._tell(reading, steps)

    def _tell(self, reading: Reading, steps: int) -> None:
        if reading.telling is None:
            whole = isinstance(reading.found, ListLoadResult)
            delivery = self.loader._delivery
            reading.telling = (delivery.whole if whole else delivery.rows)(reading.found)
        for _ in range(steps):
            try:
                reading.telling.send(None)  # type: ignore[union-attr]
            except StopIteration:
                self.reading.remove(reading)
                return

    def _finish(self, reading: Reading) -> None:
        self._read(reading)
        while reading in self.reading:
            self._tell(reading, 100)

    def fail(self, which: int) -> None:
        """The database could not be reached."""
        reading = _any([each for each in self.reading if each.telling is None], which)
        self.reading.remove(reading)
        if isinstance(reading.jobs, ListLoadRequest):
            reading.jobs.roster.done_whole(None)
            self.hub.done_list(reading.jobs.roster)
        else:
            self.loader._batches.give_back(reading.jobs)

    def take_traces(self) -> None:
        self.tracing += self.hub.take_lookups()

    def trace(self, too_many: int = 9, fails: int = 9) -> None:
        """Lead a change back to the rows that it concerns."""
        trace = self.tracing.pop(0)
        values = set(trace.values)
        if trace.path.table == "b":
            keys = [key for key in self.tables["a"] if key // 2 in values]
        else:
            keys = sorted(values)
        if fails == 0:
            self.hub.give_back(trace)
        else:
            self.hub.resolved(trace, None if too_many == 0 else keys)

    def try_again(self) -> None:
        """Time passes, and what failed is read again."""
        for thing in list(self.loader._retries.things):
            if thing.wanted:
                self.hub.mark(thing)
            else:
                self.loader._retries.succeeded(thing)

    # The clients

    def _subscribe(
        self, mine: Context, instead_of: ListSubscription | None = None
    ) -> ListSubscription:
        client, selection = mine.client, mine.selection
        client.send_queue.hold()
        client.held += 1

        def begun(listed: ListSnapshot | Refusal) -> None:
            client.waiting.discard(watch)
            if isinstance(listed, Refusal):
                del self.watched[watch]
                return
            if instead_of is not None:
                self._end(instead_of)
            if not listed.resumed:
                mine.has = {row.key: row.view.body for row in listed.rows}  # type: ignore[misc]
                mine.unsure = set()

        watch = ListSubscription(client.send_queue, 1, mine, begun)
        client.waiting.add(watch)
        self.watched[watch] = mine
        self.hub.add_list(watch, selection.subject, selection, single=selection.counts)
        return watch

    def subscribe(self, which: int, selection: Selection, hidden: int | None, own: bool) -> None:
        self._subscribe(Context(_any(self.everyone, which), selection, hidden, own))

    def leave(self, which: int, how: str, to: int) -> None:
        """Unsubscribe; or subscribe once more by the same name; or break off and come back."""
        watch, mine = _any(self.watched.items(), which)
        new = Context(mine.client, mine.selection, mine.hidden, mine.own)
        if how == "replace" and watch.on_started is None:
            self._subscribe(new, instead_of=watch)
            return
        self._end(watch)
        if how != "come back" or not self.listening:
            return
        new.client = _any(self.everyone, to)
        if watch.on_started is None and not mine.selection.counts:
            new.back = {key: View.of(body).etag for key, body in mine.has.items()}
            new.has = dict(mine.has)
        self._subscribe(new)

    def see_another_list(self, which: int, selection: Selection) -> None:
        """A client's queryset is another one from now on; a load finds out."""
        watch, mine = _any(self.watched.items(), which)
        if watch.on_started is None:
            mine.selection = replace(selection, counts=mine.selection.counts)

    def _end(self, watch: ListSubscription) -> None:
        if self.watched.pop(watch, None) is not None:
            watch.context.client.waiting.discard(watch)
            self.hub.discard(watch)

    def client_reads(self, which: int, frames: int) -> None:
        _any([client for client in self.everyone if client.awake], which).write(frames)

    def hold_or_release(self, which: int) -> None:
        """A client's message is being answered, or has been."""
        client = _any(self.everyone, which)
        if client.held > len(client.waiting):
            client.held -= 1
            client.send_queue.release()
        elif which == 0:
            client.held += 1
            client.send_queue.hold()

    # What holds at any time, and in the end

    def no_news_waits_for_nobody(self) -> None:
        """A queue with news has a writer, unless it is held."""
        for client in self.everyone:
            assert client.awake or client.held or not len(client.send_queue)

    def nothing_piles_up(self) -> None:
        """A row waits in a queue only if the client has it, or is to have it."""
        assert len(self.hub) == len(self.watched)
        for client in self.everyone:
            if any(
                w.roster and w.roster.loading
                for w in self.watched
                if w.send_queue is client.send_queue
            ):
                continue  # some may have been told of a row and others not yet
            most = 0
            for watch, mine in self.watched.items():
                if mine.client is client:
                    told = watch.has or {}
                    told = told if watch.roster is None else watch.roster.holdings(watch)
                    most += len({*mine.has, *told}) + 1  # an error of the whole list
            assert len(client.send_queue) <= most

    def end(self) -> None:
        """Let everything come to an end, and see that all clients have the truth."""
        for transaction in list(self.running.values()):
            self._commit(transaction, "all")
        if not self.listening:
            self.listen_again()
        for key in list(self.broken):
            self.break_or_mend_a_row(key)
        self._rest()
        # Who sees another list is noticed with the next change.
        while any(
            w.roster is None or w.roster.identity != m.selection for w, m in self.watched.items()
        ):
            self.write("a", 0, 0)
            self._rest()
        for watch, mine in self.watched.items():
            assert watch.on_started is None
            assert mine.has == self.truth(mine)
        for watch in list(self.watched):
            self._end(watch)
        assert self.hub.empty
        assert not self.hub.busy
        assert not any(len(client.send_queue) for client in self.everyone)

    def _rest(self) -> None:
        """Let everything come to an end."""
        self.hear(len(self.on_the_way))
        rounds = 0
        while self.reading or self.tracing or self.hub.dirty or self.loader._retries.things:
            for reading in list(self.reading):
                self._finish(reading)
            self.take_traces()
            while self.tracing:
                self.trace()
            for reading in [*self._take(3), *self._take_lists(3)]:
                self._finish(reading)
            self.try_again()
            rounds += 1
            assert rounds < 100, "it does not end"
        for client in self.everyone:
            while client.held > len(client.waiting):
                client.held -= 1
                client.send_queue.release()
            client.write()


def _any(things: Iterable[Any], which: int) -> Any:
    every = list(things)
    return every[which % len(every)]
