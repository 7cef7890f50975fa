"""
From the LISTEN connection's socket to the hub: payloads become changes, labels tables, and keys identities.

Any role can send a flood of notifications, and a large import is a flood, too. Marking single rows is
therefore bounded for each table. Beyond the bound the intake marks the whole table, twice a second.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from pgobserve.errors import PayloadInvalid
from pgobserve.listen.payload import parse
from pgobserve.sql.keys import identity, key_fields
from pgobserve.sql.model_tables import labels_of, model_of
from pgobserve.wire import PAYLOAD_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import psycopg

    from pgobserve.database.async_connection import Connection
    from pgobserve.hub.hub import Hub
    from pgobserve.sql.keys import Model
    from pgobserve.wire import Change

    Keys = tuple[Any, ...] | None

#: Seconds of handling notifications before the event loop runs other tasks.
SLICE: Final = 0.005

#: Steps that the changes of one table may take in a window: about a tenth of the window's time.
#: A key takes ten steps, marking it for a list takes one.
MAX_STEPS: Final = 250_000
DECODE_STEPS: Final = 10

#: How a trigger starts a payload. The label follows.
START: Final = f'{{"v":{PAYLOAD_VERSION},"t":"'

#: Seconds of a window, and between two marks of a table in a flood.
WINDOW: Final = 1.0
FLOOD_INTERVAL: Final = 0.5


@dataclass(slots=True)
class ListenerState:
    """
    The state of a listener, for monitoring.

    Attributes:
        live: Whether notifications arrive now.
        since: When ``live`` last changed, in seconds since the epoch.
        gaps: Interruptions after which everything watched was read again.
        notifications: Notifications received so far.
        ignored: Notifications that no trigger of this project wrote.
        queue_usage: Used share of the server's notification queue, at the last heartbeat.
        error: Why the listener is not live.
    """

    live: bool = False
    since: float = field(default_factory=time.time)
    gaps: int = 0
    notifications: int = 0
    ignored: int = 0
    queue_usage: float = 0.0
    error: str | None = None


@dataclass(slots=True, eq=False)
class NotificationReader:
    """
    Takes the notifications of one LISTEN connection from its socket.

    ``connection.notifies()`` would prepare its next wait between two changes, while the thread that
    reads the first one waits for the interpreter. Notifications that it has taken from libpq are lost
    when its loop is left.

    Args:
        state: Counts the notifications.
        on_payload: Called with each payload on the channel.
    """

    _connection: Connection
    _channel: str
    _state: ListenerState
    _on_payload: Callable[[str], object]
    _more: bool = False
    # Those that arrived with the answer to a statement; there may be many at once.
    _waiting: deque[str] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._connection.add_notify_handler(self._keep)

    def read(self, lost: asyncio.Future[None], resumed: bool = False) -> None:
        """Handle pending notifications for one slice. The rest waits for another turn."""
        if lost.done() or (self._more and not resumed):
            return
        self._more = False
        until = monotonic() + SLICE
        try:
            while (payload := self._next()) is not None:
                self._state.notifications += 1
                self._on_payload(payload)
                # A flood would block the event loop, and with it every socket of the process.
                if monotonic() > until:
                    self._more = True
                    asyncio.get_running_loop().call_soon(self.read, lost, True)
                    return
        except Exception as error:  # noqa: BLE001 (it is raised where it is waited for)
            lost.set_exception(error)

    def _next(self) -> str | None:
        """Return the next payload on the channel, or None."""
        if self._waiting:
            return self._waiting.popleft()
        pgconn, encoding = self._connection.pgconn, self._connection.info.encoding
        # Consume input only after everything read is handled: the rest waits in the server.
        for reads in (False, True):
            if reads:
                pgconn.consume_input()
            while (note := pgconn.notifies()) is not None:
                if note.relname.decode(encoding) == self._channel:
                    return note.extra.decode(encoding)
        return None

    def _keep(self, notification: psycopg.Notify) -> None:
        if notification.channel == self._channel:
            self._waiting.append(notification.payload)


@dataclass(slots=True)
class _Window:
    """What the changes of one table have cost since a moment."""

    began: float
    steps: int = 0


class Intake:
    """
    Routes changes to the hub.

    Args:
        hub: Receives the tables and keys.
        ignore: Called with the reason for a change that the intake cannot use.
        kick: Called when the hub has rows to read.
        signals: Handlers for labels that are not a model's. They receive the keys.
    """

    def __init__(
        self,
        hub: Hub,
        ignore: Callable[[str], object],
        kick: Callable[[], object],
        signals: Mapping[str, Callable[[Keys], object]] = MappingProxyType({}),
    ) -> None:
        self._hub = hub
        self._ignore = ignore
        self._kick = kick
        self._signals = signals
        self._windows: dict[str, _Window] = {}
        # Tables in a flood, and whether changes of them are still unmarked.
        self._flooded: dict[str, bool] = {}

    def take(self, payload: str) -> None:
        """Take a payload from the listener; one that no trigger wrote is ignored."""
        if self._flooded and self._skim(payload):
            return
        try:
            change = parse(payload)
        except PayloadInvalid as error:
            self._ignore(str(error))
        else:
            self.receive(change)

    def receive(self, change: Change) -> None:
        """Take a change from the listener, or from the outbox, and start the loads that it needs."""
        signal = self._signals.get(change.label)
        if signal is not None:
            signal(change.keys)
        elif self.route(change):
            self._kick()

    def route(self, change: Change) -> bool:
        """
        Mark the rows that a change concerns.

        Returns:
            Whether the hub may have rows to read now.
        """
        model = model_of(change.label)
        if model is None:
            self._ignore(f"it names {change.label[:80]!r}, which is no model of this project")
            return False
        table = model._meta.db_table
        if table in self._flooded:
            self._flooded[table] = True
            return False
        if not self._hub.watches_table(table):
            return False
        now, window = monotonic(), self._windows.get(table)
        if window is None or now - window.began >= WINDOW:
            window = self._windows[table] = _Window(now)
        window.steps += self._cost(table, change)
        if window.steps > MAX_STEPS:
            self._flood(table)
            return True
        self._hub.publish(table, change.xid, _identities(model, change.keys), change.routes)
        return True

    def _skim(self, text: str) -> bool:
        """Take a payload without decoding it, if its table is in a flood; return whether it was."""
        if not text.startswith(START):
            return False
        model = model_of(text[len(START) : text.find('"', len(START))])
        if model is None or model._meta.db_table not in self._flooded:
            return False
        self._flooded[model._meta.db_table] = True
        return True

    @property
    def behind(self) -> bool:
        """
        Whether a change of a table in a flood is still unmarked.

        The intake marks it within :data:`FLOOD_INTERVAL` seconds. Marking it at once would let clients
        defeat the bound.
        """
        return any(self._flooded.values())

    def _cost(self, table: str, change: Change) -> int:
        rows, lists = self._hub.spread(table)
        if change.keys is None:
            return DECODE_STEPS + rows + lists
        routed = sum(map(len, change.routes.values())) if change.routes else 0
        return DECODE_STEPS + len(change.keys) * (DECODE_STEPS + lists) + routed

    def _flood(self, table: str) -> None:
        """Mark the whole table now, and twice a second until the flood ends."""
        self._mark_all(table)
        self._windows.pop(table, None)
        self._flooded[table] = False
        asyncio.get_running_loop().call_later(FLOOD_INTERVAL, self._mark_flooded, table)

    def _mark_flooded(self, table: str) -> None:
        if not self._flooded.pop(table, False):
            return
        self._flood(table)
        self._kick()

    def _mark_all(self, table: str) -> None:
        # No transaction id: the changes are of many transactions, so no snapshot covers them.
        self._hub.publish(table, None, None)


def routes(hub: Hub) -> Mapping[str, Collection[str]]:
    """Return the columns whose values resolve to watched rows, by label."""
    found = hub.routes()
    return {label: found[table] for table in found for label in labels_of(table)}


def _identities(model: Model, keys: Sequence[Any] | None) -> Sequence[str] | None:
    """Return the identities of rows. None, for all rows, if they are not keys of the model by their form."""
    parts = len(key_fields(model))
    if keys is None or all(isinstance(key, str) for key in keys):
        return keys if parts == 1 else keys and None
    if parts == 1 or not all(isinstance(key, tuple) and len(key) == parts for key in keys):
        return None
    return [identity(key) for key in keys]
