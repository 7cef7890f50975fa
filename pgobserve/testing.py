"""Helpers for tests of projects: the changes of a transaction that never commits, and the end of feeds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, overload

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from psycopg import sql

from pgobserve import conf
from pgobserve.errors import ConfigurationError
from pgobserve.install import targets
from pgobserve.runtime import runtime
from pgobserve.triggers import compiler, installer, registry, trigger_statements
from pgobserve.triggers.server import catalog
from pgobserve.wire import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.trigger_values import TableInfo
    from pgobserve.wire import Namespace

__all__ = ["Captured", "Changes", "capture_changes", "close_feeds"]

Action = Literal["create", "update", "delete", "truncate", "muted"]

_ROWS = sql.SQL("""
SELECT o.label, o.op, o.keys::text, o.old::text, o.new::text
  FROM {schema}.outbox o
 WHERE o.xid = pg_catalog.pg_current_xact_id_if_assigned() AND o.label = ANY(%s) AND o.at >= %s
 ORDER BY o.at, o.cmin::text::bigint
""")


@dataclass(frozen=True, slots=True)
class Captured:
    """
    A change of a row, recorded by the triggers.

    Attributes:
        label: The model's label, ``shop.order``.
        action: What happened to the row. For a whole table ``truncate``, or ``muted`` for changes that
            were made without notifications for each row.
        key: The primary key as JSON, a list if it is composite; None for a whole table.
        old: The row before, by column, as JSON; None if it was created.
        new: The row after; None if it was deleted.
    """

    label: str
    action: Action
    key: Any
    old: Mapping[str, Any] | None = None
    new: Mapping[str, Any] | None = None

    @property
    def changed(self) -> set[str]:
        """The columns that an update changed; empty for anything else."""
        if self.old is None or self.new is None:
            return set()
        return {name for name, value in self.new.items() if self.old.get(name) != value}


class Changes(Sequence[Captured]):
    """The changes of a block. While it runs, each access reads them again."""

    def __init__(
        self, connection: BaseDatabaseWrapper, namespace: Namespace, labels: Iterable[str]
    ) -> None:
        self._connection = connection
        self._query = _ROWS.format(schema=sql.Identifier(namespace.schema))
        self._labels = list(labels)
        self._final: list[Captured] | None = None
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_catalog.clock_timestamp()")
            (self._since,) = cursor.fetchone()

    def _read(self) -> list[Captured]:
        if self._final is not None:
            return self._final
        with self._connection.cursor() as cursor:
            cursor.execute(self._query, [self._labels, self._since])
            return [change for row in cursor.fetchall() for change in _changes(*row)]

    def close(self) -> None:
        """Read for the last time, before the triggers are removed."""
        self._final = self._read()

    def __len__(self) -> int:
        return len(self._read())

    @overload
    def __getitem__(self, index: int) -> Captured: ...
    @overload
    def __getitem__(self, index: slice) -> list[Captured]: ...
    def __getitem__(self, index: int | slice) -> Captured | list[Captured]:
        return self._read()[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._read() == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._read())


@contextlib.contextmanager
def capture_changes(*models: type[Model], using: str = DEFAULT_DB_ALIAS) -> Iterator[Changes]:
    """
    Capture the changes that the transaction of a block makes in any way; it need not commit.

    For ``django.test.TestCase`` and pytest-django's ``db``, which never send notifications::

        with capture_changes(Order) as changes:
            pay(order)
        assert [(c.action, c.changed) for c in changes] == [("update", {"state"})]

    During the block the tables have triggers that write to the outbox, in the same transaction; afterwards
    their previous triggers are restored. Changes that are rolled back to a savepoint are not captured.

    Args:
        *models: The models; by default those of all tables with our triggers in this database.
        using: The database alias.

    Raises:
        ConfigurationError: No model is named, and no table has triggers.
    """
    connection, namespace = connections[using], conf.namespace(using)
    with transaction.atomic(using=using):
        wanted = _registrations(connection, namespace, models)
        with _installed(connection, namespace, wanted):
            changes = Changes(connection, namespace, [each.label for each in wanted])
            yield changes
            changes.close()


def _registrations(
    connection: BaseDatabaseWrapper, namespace: Namespace, models: tuple[type[Model], ...]
) -> list[Registration]:
    comments = [
        each.comment
        for on_table in catalog.triggers(connection, namespace).values()
        for each in on_table.values()
        if each.comment is not None
    ]
    named = models or tuple(registry.find(label) for label in {each.label for each in comments})
    if not named:
        raise ConfigurationError(
            f"Nothing to capture in the database {connection.alias!r}: no table has triggers. Name "
            "the models, capture_changes(Order), or install the triggers first."
        )
    given = conf.get().MODELS
    options = given if isinstance(given, Mapping) else {}
    return [
        replace(each, transport="outbox", wake="poll")
        for each in registry.build(named, options, namespace=namespace)
    ]


@contextlib.contextmanager
def _installed(
    connection: BaseDatabaseWrapper, namespace: Namespace, wanted: list[Registration]
) -> Iterator[None]:
    before = catalog.triggers(connection, namespace)
    for registration in wanted:
        plan = installer.make_plan(connection, registration)
        _run(connection, plan.statements)
    yield
    for registration in wanted:
        _restore(connection, registration, before)


def _restore(
    connection: BaseDatabaseWrapper,
    registration: Registration,
    before: Mapping[int, Mapping[str, Any]],
) -> None:
    """Restore the triggers that the table had, or remove ours."""
    table = installer.target(connection, registration)
    comment = next((e.comment for e in before.get(table.oid, {}).values() if e.comment), None)
    previous = None if comment is None else targets.recorded(comment, connection.alias)
    functions = _functions(registration, table)
    if comment is None or previous is None:
        statements = trigger_statements.uninstall_statements(
            [table, *table.parts], functions, registration.namespace
        )
        _run(connection, statements)
        return
    unused = [each for each in functions if each not in _functions(previous, table)]
    statements = trigger_statements.install_statements(
        previous, table, always=comment.always, unused=unused
    )
    _run(connection, statements)


def _functions(registration: Registration, table: TableInfo) -> list[str]:
    wanted = compiler.wanted(registration, table, always=False)
    return [each.function for each in wanted.values()]


def _run(connection: BaseDatabaseWrapper, statements: Iterable[str]) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def _changes(
    label: str, operation: str, keys: str | None, old: str | None, new: str | None
) -> Iterator[Captured]:
    if keys is None:
        yield Captured(label, "truncate" if operation == Operation.TRUNCATE else "muted", None)
        return
    of_rows = json.loads(keys)
    none = [None] * len(of_rows)
    befores = none if old is None else json.loads(old)
    afters = none if new is None else json.loads(new)
    for key, before, after in zip(of_rows, befores, afters, strict=True):
        action: Action = "update"
        if before is None:
            action = "create"
        elif after is None:
            action = "delete"
        yield Captured(label, action, key, before, after)


async def close_feeds() -> None:
    """
    End the feeds of the running event loop.

    A feed lingers for a few seconds after its last subscription, for pages that are reloaded. Tests that
    drop their database, or count threads or connections, end it at once. A later subscription starts a new
    feed.

    When this returns, the feeds' tasks and threads have ended and their database connections are closed. A
    thread that is stuck in the project's code is abandoned after two seconds.
    """
    await runtime.current().aclose()
