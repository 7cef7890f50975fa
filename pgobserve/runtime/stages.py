"""Builds the stages of a feed from its options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve.database.server_identity import ServerCheck, Servers
from pgobserve.listen.intake import Intake, routes
from pgobserve.listen.listener import Listener
from pgobserve.load.loader import Loader
from pgobserve.outbox.outbox_reader import OutboxReader, ReaderOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgobserve.hub.hub import Hub
    from pgobserve.outbox.event_subscriptions import EventSubscriptions
    from pgobserve.runtime.feed_options import Options


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
    wanted = ReaderOptions(
        parameters=options.parameters,
        on_change=intake.receive,
        on_gap=on_gap,
        call=loader.call,
        poll=not options.listens,
        retention=options.retention,
        routes=lambda: routes(hub),
        run=lambda: servers.run,
        namespace=options.namespace,
        alias=options.alias,
    )
    return OutboxReader(wanted, subscriptions)
