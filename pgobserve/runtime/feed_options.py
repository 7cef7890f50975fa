"""The options of a feed. Only `pgobserve.conf` reads settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pgobserve.wire import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgobserve.database.server_identity import ServerCheck
    from pgobserve.read.row_reader import RowReader
    from pgobserve.wire import Namespace

#: Seconds for which a feed keeps running without subscriptions, so that a reloaded page finds it.
LINGER: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    The options of one feed.

    Attributes:
        alias: The database alias.
        channel: The NOTIFY channel.
        parameters: Returns the LISTEN connection's parameters, as psycopg keywords.
        reader: Returns what reads and renders rows and lists, in threads.
        threads: How many loads run at a time.
        hook_timeout: Seconds that a hook may hold a thread.
        statement_timeout: Seconds for one statement of a load; 0 for no limit.
        linger: Seconds for which the feed keeps running without subscriptions.
        namespace: The namespace of this project in the database.
        outbox: Whether changes travel by the outbox, too. Without it the feed still reads an outbox
            from the first wake-up on.
        listens: Whether changes or wake-ups travel by NOTIFY.
        retention: Minimum seconds for which rows of the outbox are kept.
    """

    alias: str
    channel: str
    parameters: Callable[[], Mapping[str, Any]]
    reader: Callable[[ServerCheck], RowReader]
    threads: int
    hook_timeout: float = 30.0
    statement_timeout: float = 0
    linger: float = LINGER
    namespace: Namespace = ALONE
    outbox: bool = False
    listens: bool = True
    retention: float = 3600.0
