"""
What the two sides agree on: the write side puts it there, the read side expects it.

Nothing here may depend on anything else of this package.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Operation(StrEnum):
    """What a statement did to the rows it touched; ``o`` in a payload."""

    INSERT = "I"
    UPDATE = "U"
    DELETE = "D"
    TRUNCATE = "T"


#: Version of the payload; ``v`` in it. A reader ignores versions that it does not know.
PAYLOAD_VERSION: Final = 1

#: The one channel. Lower case, because ``LISTEN`` folds case and ``pg_notify`` does not.
CHANNEL: Final = "pgobserve"

#: Bytes that PostgreSQL takes in one payload (``async.c``: BLCKSZ - NAMEDATALEN - 128, less the NUL).
MAX_PAYLOAD_BYTES: Final = 7999

#: Keys of one statement that are named one by one; above, "read this table again" is cheaper for all.
MAX_KEYS: Final = 10_000

#: ``SET LOCAL pgobserve.mute = 'on'`` keeps a transaction's triggers silent.
MUTE_SETTING: Final = "pgobserve.mute"

#: With this value of it, a statement that changes no row makes a trigger write to the outbox that its
#: table is to be read again.
MUTE_MARK: Final = "mark"

#: Name of the trigger for each operation, the same on every table.
TRIGGER_NAMES: Final[Mapping[Operation, str]] = {
    Operation.INSERT: "pgobserve_i",
    Operation.UPDATE: "pgobserve_u",
    Operation.DELETE: "pgobserve_d",
    Operation.TRUNCATE: "pgobserve_t",
}

#: How changes may travel.
TRANSPORTS: Final = ("notify", "outbox")

#: How a reader of the outbox learns that there is something: by a NOTIFY that two writers at a time
#: send, or by looking again and again.
WAKES: Final = ("gated", "poll")

#: First key of the advisory locks that are about the outbox.
OUTBOX_NAMESPACE: Final = 1885826914

#: The second keys: below this many, the slots of the gate in front of the wake-up. With a flush of
#: 1 ms, eight writers kept 0.89 of their commits with one or two, and 0.66 with four: whoever has a
#: slot queues for NOTIFY's lock behind whoever has another. …
OUTBOX_WAKE_SLOTS: Final = 2
#: … whoever sets the outbox's sequences …
OUTBOX_SEQUENCES_LOCK: Final = 16
#: … and whoever rotates it.
OUTBOX_ROTATION_LOCK: Final = 17

#: The wake-up. Always the same text: within a transaction it is sent once. It is about no row.
OUTBOX_WAKE_UP: Final = '{"v":1,"t":"pgobserve.outbox","o":"I","x":"0","k":null}'

#: What a reader's mark says that it is about; its key is a name that the reader made up.
MARK: Final = "pgobserve.mark"
