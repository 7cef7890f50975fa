"""
From what is heard to what is to be read: labels become tables, JSON becomes keys.

Anybody may send a flood of notifications, and a large import is one as well. What marking rows one by
one may cost is bounded for each table; beyond the bound the whole table is marked, twice a second.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from pgobserve.sql.keys import ALIKE, collide, to_key
from pgobserve.sql.model_tables import labels_of, model_of
from pgobserve.wire import PAYLOAD_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

    from pgobserve.hub.change import Change
    from pgobserve.hub.hub import Hub

#: Steps that the changes of one table may take in a window, about a tenth of its time. To decode a key
#: takes ten, to mark it for a list takes one.
STEPS: Final = 250_000
TO_DECODE: Final = 10

#: What a payload begins with, as triggers write it; then comes the label.
START: Final = f'{{"v":{PAYLOAD_VERSION},"t":"'

#: Seconds of a window, and between two times that a table in a flood is marked.
WINDOW: Final = 1.0
EVERY: Final = 0.5


class _Window:
    """What the changes of one table took lately."""

    __slots__ = ("began", "hashes", "steps")

    def __init__(self, began: float) -> None:
        self.began = began
        self.steps = 0
        self.hashes: Counter[int] = Counter()


class Intake:
    """
    Marks what changes concern.

    Args:
        hub: What is watched.
        ignore: Called with the reason if a change, or a key in it, is of no use.
        kick: Called when there is something to read, without a change being heard just then.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        hub: Hub,
        ignore: Callable[[str], object],
        kick: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub = hub
        self._ignore = ignore
        self._kick = kick
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        # Tables in a flood; whether there are changes of them that are not marked yet.
        self._flooded: dict[str, bool] = {}

    def take(self, change: Change) -> bool:
        """
        Mark what a change concerns.

        Args:
            change: As it was heard: anybody may have sent it.

        Returns:
            Whether there may be something to read now.
        """
        model = model_of(change.label)
        if model is None:
            self._ignore(f"it speaks of {change.label[:80]!r}, which is no model here")
            return False
        table = model._meta.db_table
        if table in self._flooded:
            self._flooded[table] = True
            return False
        if not self._hub.watches_table(table):
            return False
        now, window = self._clock(), self._windows.get(table)
        if window is None or now - window.began >= WINDOW:
            window = self._windows[table] = _Window(now)
        window.steps += self._cost(table, change)
        if window.steps > STEPS:
            self._flood(table)
            return True
        keys = None if change.keys is None else _decoded(model, change.keys, self._ignore)
        if keys is not None and collide(keys, window.hashes, ALIKE):
            self._ignore(f"its keys of {model._meta.label} were chosen for their hashes")
            self._flood(table)
            return True
        self._hub.publish(table, change.xid, keys, change.routes)
        return True

    def skim(self, text: str) -> bool:
        """
        Take a payload without decoding it, if its table is in a flood.

        Args:
            text: As it was heard.

        Returns:
            Whether it was taken.
        """
        if not self._flooded or not text.startswith(START):
            return False
        model = model_of(text[len(START) : text.find('"', len(START))])
        if model is None or model._meta.db_table not in self._flooded:
            return False
        self._flooded[model._meta.db_table] = True
        return True

    @property
    def behind(self) -> bool:
        """
        Whether a change of a table in a flood has not been marked yet.

        It is within :data:`EVERY` seconds. Marking it at once would let clients defeat the bound.
        """
        return any(self._flooded.values())

    def flush(self) -> None:
        """Mark now what is waiting: whatever was heard so far is marked when this returns."""
        for table, waiting in self._flooded.items():
            if waiting:
                self._flooded[table] = False
                self._mark_all(table)

    def _cost(self, table: str, change: Change) -> int:
        rows, lists = self._hub.spread(table)
        if change.keys is None:
            return TO_DECODE + rows + lists
        routed = sum(map(len, change.routes.values())) if change.routes else 0
        return TO_DECODE + len(change.keys) * (TO_DECODE + lists) + routed

    def _flood(self, table: str) -> None:
        """Mark the whole table now, and from now on twice a second until the flood ends."""
        self._mark_all(table)
        self._windows.pop(table, None)
        self._flooded[table] = False
        asyncio.get_running_loop().call_later(EVERY, self._look, table)

    def _look(self, table: str) -> None:
        if not self._flooded.pop(table, False):
            return
        self._flood(table)
        self._kick()

    def _mark_all(self, table: str) -> None:
        # Of many transactions: it is read whatever a snapshot has seen.
        self._hub.publish(table, None, None)


def routes(hub: Hub) -> Mapping[str, Collection[str]]:
    """Return the columns whose values lead back to what is watched, by label."""
    found = hub.routes()
    return {label: found[table] for table in found for label in labels_of(table)}


def _decoded(model: Any, raw: Sequence[Any], ignore: Callable[[str], object]) -> list[Hashable]:
    keys = []
    for value in raw:
        try:
            keys.append(to_key(model, value))
        except ValueError as error:
            ignore(f"{value!r:.80} is no key of {model._meta.label}: {error}")
    return keys
