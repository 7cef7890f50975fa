"""
What the two sides agree on: the write side puts it there, the read side expects it.

Nothing here may depend on anything else of this package.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Operation(StrEnum):
    """What a statement did to the rows it touched; ``o`` in a payload."""

    INSERT = "I"
    UPDATE = "U"
    DELETE = "D"
    TRUNCATE = "T"


#: The operations that change rows one by one, so that the rows have images.
WITH_IMAGES: Final = (Operation.INSERT, Operation.UPDATE, Operation.DELETE)

#: Version of the payload; ``v`` in it. A reader ignores versions that it does not know.
PAYLOAD_VERSION: Final = 1

#: Bytes that PostgreSQL takes in one payload (``async.c``: BLCKSZ - NAMEDATALEN - 128, less the NUL).
MAX_PAYLOAD_BYTES: Final = 7999

#: Keys of one statement that are named one by one; above, "read this table again" is cheaper for all.
MAX_KEYS: Final = 10_000

#: With this value of the mute setting, a statement that changes no row makes a trigger write to the
#: outbox that its table is to be read again.
MUTE_MARK: Final = "mark"

#: The share of the server's notification queue in use from which on triggers notify no more. At 1 the
#: commit of a transaction that has notified fails.
QUEUE_FULL: Final = 0.9

#: How changes may travel.
TRANSPORTS: Final = ("notify", "outbox")

#: How a reader of the outbox learns that there is something: by a NOTIFY that two writers at a time
#: send, or by looking again and again.
WAKES: Final = ("notify", "poll")

#: The second keys: below this many, the slots of the gate in front of the wake-up. With a flush of
#: 1 ms, eight writers kept 0.89 of their commits with one or two, and 0.66 with four: whoever has a
#: slot queues for NOTIFY's lock behind whoever has another.
OUTBOX_WAKE_SLOTS: Final = 2

#: First key of the advisory locks about the outbox, in the namespace without a name.
OUTBOX_NAMESPACE: Final = 1885826914

#: Second keys on which earlier versions waited. Nothing takes these locks any more; the numbers stay
#: reserved, so that a process of such a version never blocks a new one.
OUTBOX_SEQUENCES_LOCK: Final = 16
OUTBOX_ROTATION_LOCK: Final = 17

#: The wake-up. Always the same text: within a transaction it is sent once. It is about no row.
OUTBOX_WAKE_UP: Final = '{"v":1,"t":"pgobserve.outbox","o":"I","x":"0","k":null}'

#: What the mark of :mod:`pgobserve.listen.fence` says that it is about; its key is a random name. A process
#: that doesn't know the label ignores the payload like that of any table without a model.
FENCE: Final = "pgobserve.fence"


#: What a namespace's name may be. Its longest derived name, that of a trigger that writes to the outbox,
#: has 63 bytes at most. PostgreSQL would cut a longer one off, and it would be the name of another.
NAMESPACES: Final = re.compile(r"[a-z0-9_]{0,45}")


@dataclass(frozen=True, slots=True)
class Namespace:
    """
    The names of everything that one project has in a database beside its own tables.

    Two projects with different namespaces share nothing there, even where both observe one table.
    Each derived name needs no quotes: it may stand inside a literal of a template.

    Attributes:
        name: Lower-case letters, digits and underscores; empty for the project that needs none.

    Raises:
        ValueError: The name has other characters, or is too long.
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
        """The schema that holds the trigger functions and the outbox, and nothing else."""
        return f"pgobserve_{self.name}" if self.name else "pgobserve"

    @property
    def channel(self) -> str:
        """The NOTIFY channel. Lower case: ``LISTEN`` folds case and ``pg_notify`` does not."""
        return self.schema

    @property
    def mute_setting(self) -> str:
        """``SET LOCAL pgobserve.mute = 'on'`` keeps a transaction's triggers silent."""
        return f"{self.schema}.mute"

    def trigger(self, operation: Operation) -> str:
        """Return the name of the trigger for an operation, the same on every table."""
        return f"{self.schema}_{operation.lower()}"

    @property
    def triggers(self) -> tuple[str, ...]:
        """The names of the triggers that every observed table has."""
        return tuple(self.trigger(operation) for operation in Operation)

    def writer(self, operation: Operation) -> str:
        """Return the name of the trigger that writes to the outbox; by name it fires second."""
        return f"{self.trigger(operation)}_write"

    @property
    def writers(self) -> tuple[str, ...]:
        """The names of the triggers that a table has beside the others if it has an outbox."""
        return tuple(self.writer(operation) for operation in WITH_IMAGES)

    @property
    def all_triggers(self) -> tuple[str, ...]:
        """The names of all triggers that a table may have."""
        return (*self.triggers, *self.writers)

    @property
    def images_setting(self) -> str:
        """The setting in which a trigger leaves row images for the one that writes them."""
        return f"{self.schema}.images"

    @property
    def outbox_lock(self) -> int:
        """
        First key of the advisory locks in front of the wake-up.

        Any role can take them, so nothing may wait for them or depend on them.
        """
        return self._lock(OUTBOX_NAMESPACE, "outbox")

    def _lock(self, default: int, purpose: str) -> int:
        if not self.name:
            return default
        return zlib.crc32(f"{self.schema} {purpose}".encode()) & 0x7FFFFFFF


#: The namespace of a project that is alone in its database.
ALONE: Final = Namespace()
