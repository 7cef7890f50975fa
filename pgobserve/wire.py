"""
The format that the write side produces and the read side expects.

This module imports nothing of the package.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Operation(StrEnum):
    """What a statement did to its rows; ``o`` in a payload."""

    INSERT = "I"
    UPDATE = "U"
    DELETE = "D"
    TRUNCATE = "T"


#: The operations whose rows have images.
WITH_IMAGES: Final = (Operation.INSERT, Operation.UPDATE, Operation.DELETE)

#: Version of the payload; ``v`` in it. A reader ignores versions that it does not know.
PAYLOAD_VERSION: Final = 1

#: Bytes that PostgreSQL accepts in one payload (``async.c``: BLCKSZ - NAMEDATALEN - 128, less the NUL).
MAX_PAYLOAD_BYTES: Final = 7999

#: Keys of one statement that payloads name. Above it, a mark of the whole table is cheaper.
MAX_KEYS: Final = 10_000

#: Triggers stop notifying at this share of the server's notification queue. At 1, the commit of a
#: transaction that has notified fails.
QUEUE_FULL: Final = 0.9

#: How changes may travel.
TRANSPORTS: Final = ("notify", "outbox")

#: How readers of the outbox notice new rows: by a NOTIFY that at most two writers send at a time, or
#: by polling.
WAKES: Final = ("notify", "poll")

#: Slots of the gate in front of the wake-up; second keys of advisory locks, from 0. Sessions that hold
#: a slot queue for NOTIFY's lock. With 1 ms flushes, eight writers kept 89 % of their commit rate with
#: one or two slots, and 66 % with four.
OUTBOX_WAKE_SLOTS: Final = 2

#: First key of the outbox's advisory locks in the namespace without a name.
OUTBOX_NAMESPACE: Final = 1885826914

#: The wake-up, which names no row. PostgreSQL sends equal texts of a transaction once.
OUTBOX_WAKE_UP: Final = '{"v":1,"t":"pgobserve.outbox","o":"I","x":"0","k":null}'

#: The label of the mark of :mod:`pgobserve.listen.fence`; its key is a random name. A process that does
#: not know the label ignores the payload, like that of any table without a model.
FENCE: Final = "pgobserve.fence"

#: Valid names of a namespace. The longest derived name, of a trigger that writes to the outbox, has
#: 63 bytes. PostgreSQL would cut a longer name, which could then equal another.
NAMESPACES: Final = re.compile(r"[a-z0-9_]{0,45}")


@dataclass(frozen=True, slots=True)
class Namespace:
    """
    The names of a project's database objects beside its own tables.

    Projects with different namespaces share no object, even if they observe the same table. Derived
    names need no quotes, not even in a literal of a template. A name has at most 45 lower-case
    letters, digits and underscores, or none.
    """

    name: str = ""

    def __post_init__(self) -> None:
        if not NAMESPACES.fullmatch(self.name):
            raise ValueError(
                "a namespace has lower-case letters, digits and underscores, at most 45 of them, "
                f"not {self.name!r}"
            )

    @property
    def schema(self) -> str:
        """The schema of the trigger functions and the outbox, and of nothing else."""
        return f"pgobserve_{self.name}" if self.name else "pgobserve"

    @property
    def channel(self) -> str:
        """The NOTIFY channel. Lower case: ``LISTEN`` folds case and ``pg_notify`` does not."""
        return self.schema

    @property
    def mute_setting(self) -> str:
        """The setting that mutes a transaction's triggers: ``SET LOCAL pgobserve.mute = 'on'``."""
        return f"{self.schema}.mute"

    @property
    def marks_setting(self) -> str:
        """
        The setting that names the muted tables of which the outbox gets a mark.

        It holds labels between spaces. The first muted statement on such a table writes the mark, and
        takes the label out.
        """
        return f"{self.schema}.marks"

    def trigger(self, operation: Operation) -> str:
        """Return the name of an operation's trigger, the same on every table."""
        return f"{self.schema}_{operation.lower()}"

    @property
    def triggers(self) -> tuple[str, ...]:
        """The names of the triggers that every observed table has."""
        return tuple(self.trigger(operation) for operation in Operation)

    def writer(self, operation: Operation) -> str:
        """Return the name of the trigger that writes to the outbox. PostgreSQL fires triggers by name, so it fires second."""
        return f"{self.trigger(operation)}_write"

    @property
    def writers(self) -> tuple[str, ...]:
        """The names of the additional triggers of a table that uses the outbox."""
        return tuple(self.writer(operation) for operation in WITH_IMAGES)

    @property
    def all_triggers(self) -> tuple[str, ...]:
        """The names of all triggers, of either transport."""
        return (*self.triggers, *self.writers)

    @property
    def images_setting(self) -> str:
        """The setting in which the first trigger leaves row images for the second."""
        return f"{self.schema}.images"

    @property
    def outbox_lock(self) -> int:
        """
        First key of the advisory locks of the wake-up's gate.

        Any role can hold them, so nothing may wait for them or depend on them.
        """
        if not self.name:
            return OUTBOX_NAMESPACE
        return zlib.crc32(f"{self.schema} outbox".encode()) & 0x7FFFFFFF


#: The namespace of a project that shares its database with no other.
ALONE: Final = Namespace()


#: Reads keys and values of routes as the texts that the trigger wrote; ``json.loads`` with arguments would
#: build a decoder at each call.
TEXTS: Final = json.JSONDecoder(parse_float=str, parse_int=str)

#: Checked for each key. A set comparison needs no call for each.
_TEXT: Final = frozenset({str})


def texts_of(keys: object) -> tuple[Any, ...] | None:
    """
    Return keys, or values of a route, that were read with :data:`TEXTS`.

    Returns:
        Texts, and tuples of texts for composite keys; None if any of them has another form.
    """
    if not isinstance(keys, list):
        return None
    if _TEXT.issuperset(map(type, keys)):
        return tuple(keys)
    texts = tuple(tuple(key) if isinstance(key, list) else key for key in keys)
    known = all(
        _TEXT.issuperset(map(type, [key] if isinstance(key, str) else key or [None]))
        for key in texts
        if isinstance(key, str | tuple)
    )
    return texts if known and all(isinstance(key, str | tuple) for key in texts) else None


@dataclass(frozen=True, slots=True)
class Change:
    """
    What one notification reports: rows of a table changed.

    It is neither secret nor authenticated. A forged one costs a read at most.

    Attributes:
        label: The model's label in lower case, ``app.model``.
        operation: The statement's operation. A hint, since the row is read anyway.
        keys: The texts of the rows' keys, tuples for composite keys. None stands for all observed rows of
            the table.
        schema: The table's schema if it is not the usual one, else None.
        routes: Texts of old and new values by column, which lead from the changed rows to rows of other
            tables. None if the trigger sends none.
    """

    label: str
    operation: Operation
    xid: int
    keys: tuple[Any, ...] | None
    schema: str | None = None
    routes: Mapping[str, tuple[Any, ...]] | None = None
