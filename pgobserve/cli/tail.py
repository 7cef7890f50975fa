"""``pgobserve tail``: print changes as they are committed, or as the outbox has them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import psycopg
from django.utils import timezone
from psycopg import sql

from pgobserve import conf
from pgobserve.cli import tail_lines
from pgobserve.cli.tail_lines import Printer, TailLine
from pgobserve.database.async_connection import connect, execute, notified, parameters_of
from pgobserve.errors import PayloadInvalid, TriggerError
from pgobserve.hub.snapshot import Snapshot
from pgobserve.install import targets
from pgobserve.listen.payload import parse
from pgobserve.outbox import outbox_page, outbox_trust
from pgobserve.outbox.cursor import Cursor, Progress
from pgobserve.outbox.outbox_pages import LOST, FollowOptions, pages
from pgobserve.triggers.registry import canonical, find
from pgobserve.wire import FENCE

if TYPE_CHECKING:
    import datetime
    from collections.abc import AsyncGenerator, Collection, Sequence

    from psycopg import Notify

    from pgobserve.cli.console import Console
    from pgobserve.database.async_connection import Connection
    from pgobserve.outbox.outbox_page import Page
    from pgobserve.wire import Namespace

#: The snapshot in which no transaction is visible.
NOTHING = Snapshot(1, 1, frozenset())

#: Seconds to read one page. The outbox may be large.
READ_TIMEOUT = 600.0


def run(
    console: Console,
    labels: Sequence[str],
    *,
    database: str,
    since: datetime.datetime | None,
    follow: bool,
    rows: bool,
    as_json: bool,
) -> None:
    """Print changes; without ``since`` until interrupted."""
    wanted = frozenset(canonical(find(label))._meta.label_lower for label in labels)
    printer = Printer(console, wanted, rows=rows, as_json=as_json)
    overrides = conf.get().CONNECTION.get(database, {})
    parameters = parameters_of(targets.connect(database), overrides)

    async def tail() -> None:
        connection = await connect(parameters, READ_TIMEOUT)
        names = (conf.namespace(database), conf.channel(database))
        try:
            each = Tail(connection, *names, wanted, printer)
            if since is not None:
                await each.print_since(since, console)
            if since is None or follow:
                await each.follow()
        finally:
            await connection.close()

    try:
        asyncio.run(tail())
    except (KeyboardInterrupt, BrokenPipeError):
        return
    except LOST as error:
        raise TriggerError(f"The database {database!r} can't be read: {error}".strip()) from error


class Tail:
    """Prints notifications and the outbox, over one connection. Empty ``labels`` mean all models."""

    def __init__(
        self,
        connection: Connection,
        namespace: Namespace,
        channel: str,
        labels: Collection[str],
        printer: Printer,
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._channel = channel
        self._labels = labels
        self._printer = printer
        self._progress = Progress()

    async def print_since(self, since: datetime.datetime, console: Console) -> None:
        """Print the outbox's records from a time on."""
        await outbox_trust.check(self._connection, self._namespace, READ_TIMEOUT)
        try:
            first = await self._first()
        except psycopg.errors.UndefinedTable:
            raise TriggerError(
                "There is no outbox, so there is no past to print: PostgreSQL keeps no "
                "notifications. Set a transport of 'outbox' and run install, or omit --since."
            ) from None
        if first is not None and since < first:
            begins = timezone.localtime(first).isoformat(sep=" ", timespec="seconds")
            console.err.write(f"The outbox begins at {begins}.")
        self._progress.start(Cursor(NOTHING))
        async with aclosing(self._pages(since=since, gaps=False)) as found:
            async for page in found:
                if page is None or not page.more:
                    break

    async def follow(self) -> None:
        """Print new changes, without end."""
        # LISTEN comes before the first page, so that no change falls between them.
        statement = sql.SQL("LISTEN {}").format(sql.Identifier(self._channel))
        await execute(self._connection, statement, within=READ_TIMEOUT)
        async for _ in self._pages():
            pass

    async def _first(self) -> datetime.datetime | None:
        query = sql.SQL("SELECT min(at) FROM {}.outbox").format(
            sql.Identifier(self._namespace.schema)
        )
        row = await (await execute(self._connection, query, within=READ_TIMEOUT)).fetchone()
        return row[0] if row else None

    async def _pages(
        self, since: datetime.datetime | None = None, *, gaps: bool = True
    ) -> AsyncGenerator[Page | None, None]:
        """Print pages, and yield each."""
        options = FollowOptions(
            namespace=self._namespace,
            wanted=lambda: {"images": None, "labels": self._labels or None, "since": since},
            wait=lambda seconds: notified(self._connection, seconds, self._print_notification),
            poll=conf.get().OUTBOX_WAKE == "poll",
            gaps=gaps,
            timeout=READ_TIMEOUT,
        )
        async with aclosing(pages(self._connection, self._progress, options)) as found:
            async for page in found:
                if page is not None:
                    self._print_page(page)
                yield page

    def _print_page(self, page: Page) -> None:
        if page.gap is not None:
            self._printer.print(TailLine(timezone.now(), None, None, "reset", why=page.gap))
        for record in page.entries:
            for line in tail_lines.of_record(record):
                self._printer.print(line)
        self._progress.note(page.cursor, page.status)

    def _print_notification(self, notification: Notify) -> bool:
        """Print the changes of a notification; return whether it is a wake-up."""
        if notification.channel != self._channel:
            return False
        try:
            change = parse(notification.payload)
        except PayloadInvalid:
            return False
        if change.label == outbox_page.WAKE_UP:
            return True
        if change.label != FENCE and (not self._labels or change.label in self._labels):
            for line in tail_lines.of_change(change):
                self._printer.print(line)
        return False
