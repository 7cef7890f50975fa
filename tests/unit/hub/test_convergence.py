"""
Hub and mailboxes together, driven in any order: in the end every client has what the table has.

The world here has transactions that overlap, notifications that are under way and can be lost,
loads that overlap with all of it, and clients that read when they like.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle as Those
from hypothesis.stateful import (
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from pgobserve.deliver.delivery import offer
from pgobserve.deliver.send_queue import SendQueue
from pgobserve.hub.hub import Hub, RowState, TableDependencies
from pgobserve.hub.outcome import ABSENT, FrameAction, Outcome, Refusal, View
from pgobserve.hub.snapshot import Snapshot
from pgobserve.hub.subscriptions import RowSubscription

PLAIN = TableDependencies(("a",))
CHILD = TableDependencies(("b", "a"))
WIDE = TableDependencies(("c",), ("a",))
TABLES = ("a", "b", "c")
KEYS = st.integers(0, 2)
FAILED = Refusal(500, ("It failed.",))

State = dict[str, dict[int, int]]


class Client:
    """A socket, and what its frames tell: by subscription the body of the row, or None."""

    def __init__(self, at_once: bool) -> None:
        self.awake = False
        self.held = 0
        self.send_queue = SendQueue(self._wake, self._send if at_once else None)
        self.has: dict[RowSubscription, str | None] = {}
        self.unsure: set[RowSubscription] = set()

    def _wake(self) -> None:
        assert not self.awake, "a second writer"
        self.awake = True

    def _send(self, item: Any) -> None:
        self._wake()
        self._receive(*item)

    def begin(self, key: int) -> RowSubscription:
        def begun(outcome: Outcome) -> None:
            self.has[watch] = outcome.body if isinstance(outcome, View) else None
            if not isinstance(outcome, View):
                self.unsure.add(watch)

        watch = RowSubscription(self.send_queue, key, 1, None, begun)
        return watch

    def write(self, frames: int | None = None) -> None:
        """Let the writer send some frames, or all."""
        while self.awake and frames != 0:
            item = self.send_queue.take()
            if item is None:
                self.awake = False
                return
            self._receive(*item)
            frames = None if frames is None else frames - 1

    def _receive(self, watch: RowSubscription, outcome: Outcome, kind: FrameAction) -> None:
        assert watch.active, "a frame of an ended subscription"
        assert self.held == 0, "a frame while held"
        before, sure = self.has[watch], watch not in self.unsure
        if isinstance(outcome, Refusal):
            assert kind == "error"
            self.unsure.add(watch)
            return
        self.unsure.discard(watch)
        self.has[watch] = outcome.body
        if sure:
            assert before != outcome.body, "a frame without news"
            expected = "update" if before is not None else "create"
            assert kind == ("delete" if outcome.body is None else expected)


@dataclass(eq=False)
class Transaction:
    xid: int
    writes: list[tuple[str, int, int | None]] = field(default_factory=list)


@dataclass(eq=False)
class Reading:
    """A load: what it is about, for whom, and once it has read, what it found."""

    rows: list[tuple[RowState, list[RowSubscription]]]
    snapshot: Snapshot | None = None
    found: list[Outcome] = field(default_factory=list)


class World(RuleBasedStateMachine):
    transactions = Those("transactions")
    clients = Those("clients")
    watches = Those("watches")
    readings = Those("readings")

    def __init__(self) -> None:
        super().__init__()
        self.hub = Hub()
        self.tables: State = {name: {} for name in TABLES}
        self.next_xid = 3
        self.value = 0
        self.running: dict[int, Transaction] = {}
        self.listening = True
        self.on_the_way: deque[tuple[str, int, list[int] | None]] = deque()
        self.reading: list[Reading] = []
        self.everyone: list[Client] = []
        self.watched: dict[RowSubscription, tuple[Client, TableDependencies]] = {}
        self.broken: set[int] = set()

    # The server

    def snapshot(self) -> Snapshot:
        running = frozenset(self.running)
        return Snapshot(min(running, default=self.next_xid), self.next_xid, running)

    def visible(self, subject: TableDependencies, key: int) -> Outcome:
        own = self.tables[subject.tables[0]].get(key)
        of_a = self.tables["a"].get(key)
        if own is None or (subject is CHILD and of_a is None):
            return ABSENT
        if subject is WIDE:
            return View.of(f"{own} {sorted(self.tables['a'].items())}")
        return View.of(f"{own} {of_a}")

    @rule(target=transactions)
    def begin_transaction(self) -> Transaction:
        transaction = self.running[self.next_xid] = Transaction(self.next_xid)
        self.next_xid += 1
        return transaction

    @rule(transaction=transactions, table=st.sampled_from(TABLES), key=KEYS, gone=st.booleans())
    def write_row(self, transaction: Transaction, table: str, key: int, gone: bool) -> None:
        self.value += 1
        transaction.writes.append((table, key, None if gone else self.value))

    @rule(transaction=consumes(transactions), names_keys=st.booleans())
    def commit(self, transaction: Transaction, names_keys: bool) -> None:
        del self.running[transaction.xid]
        keys: dict[str, list[int]] = {}
        for table, key, value in transaction.writes:
            keys.setdefault(table, []).append(key)
            self.tables[table].pop(key, None)
            if value is not None:
                self.tables[table][key] = value
        if self.listening:
            for table, names in keys.items():
                self.on_the_way.append((table, transaction.xid, names if names_keys else None))

    @rule(transaction=consumes(transactions))
    def roll_back(self, transaction: Transaction) -> None:
        del self.running[transaction.xid]

    # The listener

    @rule(count=st.integers(1, 5))
    def hear(self, count: int) -> None:
        for _ in range(min(count, len(self.on_the_way))):
            self.hub.publish(*self.on_the_way.popleft())

    @rule(table=st.sampled_from([*TABLES, "x"]), xid=st.integers(0, 99), key=st.none() | KEYS)
    def forge(self, table: str, xid: int, key: int | None) -> None:
        self.hub.publish(table, xid, None if key is None else [key])

    @rule()
    def lose_connection(self) -> None:
        self.listening = False
        self.on_the_way.clear()

    @precondition(lambda self: not self.listening)
    @rule()
    def listen_again(self) -> None:
        self.listening = True
        self.hub.publish_gap()

    # The loader

    @rule(target=readings, limit=st.integers(1, 3))
    def take(self, limit: int) -> Reading:
        reading = Reading([(row, list(row.watches)) for row in self.hub.take(limit)])
        assert len(reading.rows) <= limit
        busy = {row for other in self.reading for row, _ in other.rows}
        assert not busy & {row for row, _ in reading.rows}, "a row in two loads"
        self.reading.append(reading)
        return reading

    @rule(key=KEYS)
    def break_or_mend_a_row(self, key: int) -> None:
        if key in self.broken:
            self.broken.remove(key)
            self.hub.publish("a", self.next_xid, [key])
            self.hub.publish("b", self.next_xid, [key])
            self.hub.publish("c", self.next_xid, [key])
        else:
            self.broken.add(key)

    @rule(reading=readings)
    def read(self, reading: Reading) -> None:
        if reading.snapshot is None:
            reading.snapshot = self.snapshot()
            reading.found = [
                FAILED if row.key in self.broken else self.visible(row.subject, row.key)
                for row, _ in reading.rows
            ]

    @rule(reading=consumes(readings), fails=st.integers(0, 5).map(lambda n: n == 0))
    def finish(self, reading: Reading, fails: bool) -> None:
        self.reading.remove(reading)
        if fails:
            for row, _ in reading.rows:
                self.hub.done(row, None)
            return
        self.read(reading)
        assert reading.snapshot is not None
        for (row, watches), outcome in zip(reading.rows, reading.found, strict=True):
            self.hub.done(row, reading.snapshot)
            for watch in watches:
                offer(watch, outcome)

    # The clients

    @rule(target=clients, at_once=st.booleans())
    def connect(self, at_once: bool) -> Client:
        client = Client(at_once)
        self.everyone.append(client)
        return client

    @precondition(lambda self: self.listening)
    @rule(
        target=watches,
        client=clients,
        subject=st.sampled_from([PLAIN, CHILD, WIDE]),
        key=KEYS,
    )
    def subscribe(self, client: Client, subject: TableDependencies, key: int) -> RowSubscription:
        watch = client.begin(key)
        self.watched[watch] = client, subject
        self.hub.add(watch, subject)
        return watch

    @rule(watch=consumes(watches))
    def unsubscribe(self, watch: RowSubscription) -> None:
        client, _ = self.watched.pop(watch)
        self.hub.discard(watch)
        client.has.pop(watch, None)

    @rule(client=clients, frames=st.integers(1, 3))
    def client_reads(self, client: Client, frames: int) -> None:
        client.write(frames)

    @rule(client=clients)
    def hold(self, client: Client) -> None:
        client.send_queue.hold()
        client.held += 1

    @rule(client=clients)
    def release(self, client: Client) -> None:
        if client.held:
            client.held -= 1
            client.send_queue.release()

    # What holds at any time, and in the end

    @invariant()
    def nothing_piles_up(self) -> None:
        """There is one pending entry at most for each subscription, one subscription per watch."""
        assert len(self.hub) == len(self.watched)
        for client in self.everyone:
            own = sum(owner is client for owner, _ in self.watched.values())
            assert len(client.send_queue) <= own
        rows = {(subject, watch.key) for watch, (_, subject) in self.watched.items()}
        assert self.hub.dirty <= len(rows)

    @invariant()
    def no_news_waits_for_nobody(self) -> None:
        """A queue with news has a writer, unless it is held."""
        for client in self.everyone:
            assert client.awake or client.held or not len(client.send_queue)

    def teardown(self) -> None:
        for transaction in list(self.running.values()):
            self.commit(transaction, True)
        if not self.listening:
            self.listen_again()
        for key in list(self.broken):
            self.break_or_mend_a_row(key)
        self.hear(len(self.on_the_way))
        for reading in list(self.reading):
            self.finish(reading, False)
        rounds = 0
        while self.hub.dirty:
            self.finish(self.take(3), False)
            rounds += 1
            assert rounds < 100, "it does not end"
        for client in self.everyone:
            while client.held:
                self.release(client)
            client.write()
        for watch, (client, subject) in self.watched.items():
            truth: Any = self.visible(subject, watch.key)  # type: ignore[arg-type]
            assert client.has[watch] == truth.body
            assert watch not in client.unsure
        for watch in list(self.watched):
            self.hub.discard(watch)
        assert self.hub.empty
        assert not self.hub.busy


TestConvergence = World.TestCase
TestConvergence.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
