"""What a feed is told by whoever builds it: it reads no settings itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pgobserve.wire import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgobserve.load.row_reader import Reader
    from pgobserve.wire import Namespace

#: Seconds that a feed goes on without subscriptions: a reloaded page finds it running.
LINGER: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    What a feed needs to know.

    Attributes:
        alias: The database alias.
        channel: The NOTIFY channel.
        parameters: Returns the LISTEN connection's parameters, as psycopg keywords.
        reader: Reads and renders rows and lists; runs in threads.
        threads: How many loads run at a time.
        hook_timeout: Seconds that a hook may hold a thread.
        statement_timeout: Seconds that the server works on one statement of a load; 0 for no bound.
        linger: Seconds to go on without subscriptions.
        namespace: Of this project in the database.
        outbox: Changes travel by the outbox, too; without it one is read all the same from the
            first wake-up on.
        listens: Changes, or wake-ups, travel by NOTIFY.
        retention: Seconds that rows of the outbox are kept at least.
    """

    alias: str
    channel: str
    parameters: Callable[[], Mapping[str, Any]]
    reader: Reader
    threads: int
    hook_timeout: float = 30.0
    statement_timeout: float = 0
    linger: float = LINGER
    namespace: Namespace = ALONE
    outbox: bool = False
    listens: bool = True
    retention: float = 3600.0
