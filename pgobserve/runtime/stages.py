"""The options of a feed, and the stages that are built from them. Only `pgobserve.conf` reads settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pgobserve.database.server_identity import ServerCheck
from pgobserve.listen.intake import Intake, routes
from pgobserve.listen.listener import Listener
from pgobserve.load.loader import Loader
from pgobserve.outbox.outbox_reader import OutboxReader
from pgobserve.wire import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgobserve.database.server_identity import Servers
    from pgobserve.hub.hub import Hub
    from pgobserve.outbox.event_subscriptions import EventSubscriptions
    from pgobserve.read.row_reader import RowReader
    from pgobserve.wire import Namespace


def make_listener(
    options: Options, intake: Intake, servers: Servers, on_live: Callable[[bool], object]
) -> Listener | None:
    """Return the listener, or None where the options exclude LISTEN."""
    if not options.listens:
        return None
    return Listener(
        *(options.parameters, options.channel, intake.take, on_live),
        alias=options.alias,
        servers=servers,
    )


def make_loader(
    options: Options,
    hub: Hub,
    servers: Servers,
    *,
    reconnect: Callable[[], object],
    lost: Callable[[], object],
) -> Loader:
    """
    Return the loader.

    Args:
        reconnect: Called in a loader thread when new connections reach another server.
        lost: Called when one of the loader's tasks has ended.
    """
    reader = options.reader(ServerCheck(options.alias, servers, reconnect))
    return Loader(
        *(options.alias, hub, reader, options.threads),
        timeout=options.hook_timeout,
        statement_timeout=options.statement_timeout,
        lost=lost,
    )


def make_outbox_reader(
    options: Options,
    hub: Hub,
    servers: Servers,
    intake: Intake,
    loader: Loader,
    subscriptions: EventSubscriptions,
    on_gap: Callable[[], object],
) -> OutboxReader:
    """Return the outbox reader, which passes changes to the intake and events to subscriptions."""
    return OutboxReader(
        subscriptions=subscriptions,
        parameters=options.parameters,
        on_change=intake.receive,
        on_gap=on_gap,
        call=loader.call,
        poll=not options.listens,
        retention=options.retention,
        routes=lambda: routes(hub),
        server_run=lambda: servers.run,
        namespace=options.namespace,
        alias=options.alias,
    )


#: Seconds for which a feed keeps running without subscriptions, so that a reloaded page finds it.
LINGER: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    The options of one feed.

    Attributes:
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
