"""``pgobserve tail``: prints changes as they come, or from the outbox."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from django.utils import timezone
from psycopg import sql

from pgobserve import conf
from pgobserve.database.async_connection import connect, execute, notified, parameters_of
from pgobserve.errors import PayloadInvalid, TriggerError
from pgobserve.hub.snapshot import Snapshot
from pgobserve.install import targets
from pgobserve.listen.payload import parse
from pgobserve.outbox import outbox_page, outbox_trust
from pgobserve.outbox.cursor import Cursor, Progress
from pgobserve.outbox.event import EventAction, changes_in
from pgobserve.outbox.fold import RowChange
from pgobserve.outbox.outbox_pages import LOST, FollowOptions, pages
from pgobserve.sql.model_tables import model_of
from pgobserve.triggers.registry import canonical, find
from pgobserve.wire import FENCE, Operation

if TYPE_CHECKING:
    import datetime
    from collections.abc import AsyncGenerator, Collection, Iterator, Sequence

    from psycopg import Notify

    from pgobserve.cli.console import Console
    from pgobserve.database.async_connection import Connection
    from pgobserve.outbox.outbox_page import OutboxRecord, Page
    from pgobserve.outbox.row_images import Image
    from pgobserve.wire import Namespace

STYLES = {"create": "SUCCESS", "update": "WARNING", "delete": "ERROR", "reset": "NOTICE"}

#: A notification names the statement, not what happened to each row.
ACTIONS = {
    Operation.INSERT: EventAction.CREATE,
    Operation.UPDATE: EventAction.UPDATE,
    Operation.DELETE: EventAction.DELETE,
}

#: The snapshot in which nothing is visible.
NOTHING = Snapshot(1, 1, frozenset())

#: Seconds that the server has for one page: much may have gathered in the outbox.
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


@dataclass(frozen=True, slots=True)
class TailLine:
    """
    A line of output: a change of a row or a table.

    Attributes:
        at: The time.
        xid: The transaction.
        label: The table's label.
        action: What happened to the row; or ``reset``.
        key: The row's key as JSON; None for any row.
        old: The row before, if known.
        new: The row after, if known.
        why: The reason of a reset.
    """

    at: datetime.datetime
    xid: int | None
    label: str | None
    action: str
    key: Any = None
    old: Image | None = None
    new: Image | None = None
    why: str | None = None

    @property
    def changed(self) -> list[str] | None:
        """Names of the columns that differ; None if unknown."""
        if self.old is None and self.new is None:
            return None
        old, new = (image.values if image else {} for image in (self.old, self.new))
        names = [*new, *(name for name in old if name not in new)]
        if not old or not new:
            return names
        return [name for name in names if old.get(name) != new.get(name)]


class Printer:
    """
    Prints changes as text or JSON.

    Args:
        console: The console.
        labels: Labels that will be printed, for the width of their column.
        rows: Whether to print the rows' contents.
        as_json: Whether to print JSON.
    """

    def __init__(
        self, console: Console, labels: Collection[str], *, rows: bool, as_json: bool
    ) -> None:
        self._console = console
        self._rows = rows
        self._as_json = as_json
        self._width = max((len(label) for label in labels), default=16)
        self._key_width = 6

    def print(self, line: TailLine) -> None:
        """Print a change."""
        if self._as_json:
            self._console.out.write(self._json(line))
        else:
            self._console.write(self._text(line), STYLES[line.action])
        self._console.out.flush()

    def _json(self, line: TailLine) -> str:
        content: dict[str, Any] = {
            "at": line.at.isoformat(),
            "xid": line.xid,
            "label": line.label,
            "action": line.action,
            "key": line.key,
            "changed": line.changed,
        }
        if line.why is not None:
            content["why"] = line.why
        text = json.dumps(content, default=str)
        if not self._rows:
            return text
        # The server's text, so that numbers keep their digits.
        old, new = (image.text if image else "null" for image in (line.old, line.new))
        return f'{text[:-1]}, "old": {old}, "new": {new}}}'

    def _text(self, line: TailLine) -> str:
        model = model_of(line.label) if line.label else None
        title = model._meta.label if model else line.label or "*"
        key = "*" if line.key is None else json.dumps(line.key, default=str, ensure_ascii=False)
        self._width = max(self._width, len(title))
        self._key_width = max(self._key_width, len(key))
        moment = timezone.localtime(line.at).strftime("%H:%M:%S.%f")[:-3]
        cells = [
            moment,
            f"{line.xid or '':>8}",
            line.action.ljust(6),
            title.ljust(self._width),
            key.ljust(self._key_width),
            self._details(line),
        ]
        return "  ".join(cells).rstrip()

    def _details(self, line: TailLine) -> str:
        if line.why is not None:
            return line.why
        changed = line.changed
        if changed is None or not self._rows:
            return "" if line.action != EventAction.UPDATE else ", ".join(changed or ())
        return ", ".join(f"{name}: {_shown(line, name)}" for name in changed)


def _shown(line: TailLine, name: str) -> str:
    sides = [side for side in (line.old, line.new) if side is not None]
    return " → ".join(
        json.dumps(side.values.get(name), default=str, ensure_ascii=False) for side in sides
    )


class Tail:
    """
    Prints notifications and the outbox, over one connection.

    Args:
        connection: The connection.
        namespace: The namespace that has the outbox.
        channel: The NOTIFY channel.
        labels: Labels of the models to print; empty for all.
        printer: Prints each change.
    """

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
        """Print changes as they come, for ever."""
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
        if page.why is not None:
            self._printer.print(TailLine(timezone.now(), None, None, "reset", why=page.why))
        for entry in page.entries:
            for line in _lines(entry):
                self._printer.print(line)
        self._progress.note(page.cursor, page.facts)

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
            action = ACTIONS.get(change.operation, "reset")
            why = "whole table" if change.keys is None else None
            for key in change.keys if change.keys is not None else (None,):
                self._printer.print(
                    TailLine(timezone.now(), change.xid, change.label, action, key, why=why)
                )
        return False


def _lines(entry: OutboxRecord) -> Iterator[TailLine]:
    keys = None if entry.keys is None else outbox_page.keys(entry.keys)
    for number, change in enumerate(changes_in(entry)):
        if isinstance(change, RowChange) and keys is not None:
            yield TailLine(
                entry.at,
                entry.xid,
                entry.label,
                change.action,
                keys[number],
                change.old,
                change.new,
            )
        else:
            yield TailLine(entry.at, entry.xid, entry.label, "reset", why="whole table")
