"""``tail``: print changes as they are committed, or as the outbox has them."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import dataclass, field
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
from pgobserve.outbox.event import EventAction, RowChange, changes_in
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
    from pgobserve.wire import Change, Namespace

STYLES = {"create": "SUCCESS", "update": "WARNING", "delete": "ERROR", "reset": "NOTICE"}

#: A notification names the statement only, not what became of each row.
ACTIONS = {
    Operation.INSERT: EventAction.CREATE,
    Operation.UPDATE: EventAction.UPDATE,
    Operation.DELETE: EventAction.DELETE,
}

#: The snapshot in which no transaction is visible.
NOTHING = Snapshot(1, 1, frozenset())

#: Seconds to read one page. The outbox may be large.
READ_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class TailLine:
    """A change of a row, or of any row if ``key`` is None; the row before and after, if known."""

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


def of_change(change: Change) -> Iterator[TailLine]:
    action = ACTIONS.get(change.operation, "reset")
    why = "whole table" if change.keys is None else None
    for key in change.keys if change.keys is not None else (None,):
        yield TailLine(timezone.now(), change.xid, change.label, action, key, why=why)


def of_record(record: OutboxRecord) -> Iterator[TailLine]:
    at, xid, label = record.at, record.xid, record.label
    for change in changes_in(record):
        if isinstance(change, RowChange):
            yield TailLine(at, xid, label, change.action, change.key, change.old, change.new)
        else:
            yield TailLine(at, xid, label, "reset", why="whole table")


@dataclass(slots=True)
class Printer:
    """Prints lines, with columns of labels and keys that grow."""

    console: Console
    rows: bool
    as_json: bool
    width: int
    key_width: int = 6

    def print(self, line: TailLine) -> None:
        if self.as_json:
            self.console.out.write(self._json(line))
        else:
            self.console.write(self._text(line), STYLES[line.action])
        self.console.out.flush()

    def _json(self, line: TailLine) -> str:
        values: dict[str, Any] = {
            "at": line.at.isoformat(),
            "xid": line.xid,
            "label": line.label,
            "action": line.action,
            "key": line.key,
            "changed": line.changed,
        }
        if line.why is not None:
            values["why"] = line.why
        text = json.dumps(values, default=str)
        if not self.rows:
            return text
        # The server's own text: numbers keep their digits.
        old, new = (image.text if image else "null" for image in (line.old, line.new))
        return f'{text[:-1]}, "old": {old}, "new": {new}}}'

    def _text(self, line: TailLine) -> str:
        model = model_of(line.label) if line.label else None
        title = model._meta.label if model else line.label or "*"
        key = "*" if line.key is None else line.key
        key = key if isinstance(key, str) else json.dumps(key, ensure_ascii=False)
        self.width = max(self.width, len(title))
        self.key_width = max(self.key_width, len(key))
        cells = [
            timezone.localtime(line.at).strftime("%H:%M:%S.%f")[:-3],
            f"{line.xid or '':>8}",
            line.action.ljust(6),
            title.ljust(self.width),
            key.ljust(self.key_width),
            self._details(line),
        ]
        return "  ".join(cells).rstrip()

    def _details(self, line: TailLine) -> str:
        if line.why is not None:
            return line.why
        changed = line.changed
        if changed is None or not self.rows:
            return "" if line.action != EventAction.UPDATE else ", ".join(changed or ())
        return ", ".join(f"{name}: {_values(line, name)}" for name in changed)


def _values(line: TailLine, name: str) -> str:
    sides = [side for side in (line.old, line.new) if side is not None]
    return " → ".join(
        json.dumps(side.values.get(name), default=str, ensure_ascii=False) for side in sides
    )


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
    width = max(map(len, wanted), default=16)
    printer = Printer(console, rows=rows, as_json=as_json, width=width)
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


@dataclass(slots=True)
class Tail:
    """Prints notifications and the outbox, over one connection. Empty ``labels`` mean all models."""

    connection: Connection
    namespace: Namespace
    channel: str
    labels: Collection[str]
    printer: Printer
    progress: Progress = field(default_factory=Progress)

    async def print_since(self, since: datetime.datetime, console: Console) -> None:
        """Print the outbox's records from a time on."""
        await outbox_trust.check(self.connection, self.namespace, READ_TIMEOUT)
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
        self.progress.start(Cursor(NOTHING))
        async with aclosing(self._pages(since=since, gaps=False)) as found:
            async for page in found:
                if page is None or not page.more:
                    break

    async def follow(self) -> None:
        """Print new changes, without end."""
        # LISTEN comes before the first page, so that no change falls between them.
        statement = sql.SQL("LISTEN {}").format(sql.Identifier(self.channel))
        await execute(self.connection, statement, within=READ_TIMEOUT)
        async for _ in self._pages():
            pass

    async def _first(self) -> datetime.datetime | None:
        query = sql.SQL("SELECT min(at) FROM {}.outbox").format(
            sql.Identifier(self.namespace.schema)
        )
        row = await (await execute(self.connection, query, within=READ_TIMEOUT)).fetchone()
        return row[0] if row else None

    async def _pages(
        self, since: datetime.datetime | None = None, *, gaps: bool = True
    ) -> AsyncGenerator[Page | None, None]:
        """Print pages, and yield each."""
        options = FollowOptions(
            namespace=self.namespace,
            wanted=lambda: {"images": None, "labels": self.labels or None, "since": since},
            wait=lambda seconds: notified(self.connection, seconds, self._print_notification),
            poll=conf.get().OUTBOX_WAKE == "poll",
            gaps=gaps,
            timeout=READ_TIMEOUT,
        )
        async with aclosing(pages(self.connection, self.progress, options)) as found:
            async for page in found:
                if page is not None:
                    self._print_page(page)
                yield page

    def _print_page(self, page: Page) -> None:
        if page.gap is not None:
            self.printer.print(TailLine(timezone.now(), None, None, "reset", why=page.gap))
        for record in page.entries:
            for line in of_record(record):
                self.printer.print(line)
        self.progress.note(page.cursor, page.status)

    def _print_notification(self, notification: Notify) -> bool:
        """Print the changes of a notification; return whether it is a wake-up."""
        if notification.channel != self.channel:
            return False
        try:
            change = parse(notification.payload)
        except PayloadInvalid:
            return False
        if change.label == outbox_page.WAKE_UP:
            return True
        if change.label != FENCE and (not self.labels or change.label in self.labels):
            for line in of_change(change):
                self.printer.print(line)
        return False
