"""How changes of a model's tables travel, and to which consumers and model observers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pgobserve.cli.doctor.table_health import lacks_only_routes, missing_routes, subscribed
from pgobserve.install import consumer_registry, survey, targets
from pgobserve.install.unseen_tables import path_of
from pgobserve.observer.consumer import declared_model
from pgobserve.sql.model_tables import tables_of
from pgobserve.triggers.server.drift import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import Model

    from pgobserve.cli.doctor.case import Examination
    from pgobserve.dependencies.gathering import Dependencies
    from pgobserve.sql.relation_path import RelationPath
    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.server.drift import Status
    from pgobserve.triggers.trigger_values import TableInfo


class WatcherKind(StrEnum):
    """How a watcher depends on a table."""

    OWN = "own"
    PART = "part"
    LINK = "link"
    WIDE = "wide"
    EVENTS = "events"


@dataclass(frozen=True, slots=True)
class Watcher:
    """
    A consumer class or a model observer that watches a table.

    Attributes:
        root: The model of the watched rows; None for an observer.
        path: The path from the watched rows to the table's.
    """

    name: str
    kind: WatcherKind
    consumer: Any = None
    root: type[Model] | None = None
    path: RelationPath | None = None

    def __str__(self) -> str:
        root = self.root._meta.label if self.root is not None else ""
        if self.kind is WatcherKind.EVENTS:
            return "events, by a model_observer"
        if self.kind is WatcherKind.OWN:
            return f"rows of {root}, by key"
        if self.kind is WatcherKind.PART:
            return f"a part of rows of {root}, by key"
        if self.path is None:
            return f"rows of {root}, all read again at each change"
        resolved = f"by {self.path.column} in the change" if self.path.column else "by key"
        return f"as {path_of(self.path)} of rows of {root}, resolved {resolved}"


def of_table(model: type[Model]) -> list[Watcher]:
    consumers = [each for cls in consumer_registry.consumers() for each in _of_consumer(cls, model)]
    observers = consumer_registry.observers()
    names = {dotted(each) for each in observers if model in each.evented_models}
    return [*consumers, *(Watcher(name, WatcherKind.EVENTS) for name in sorted(names))]


def unresolved() -> dict[str, tuple[str, ...]]:
    """Return the dependencies that can't be determined, by the consumer's dotted name."""
    return {
        dotted(cls): found.unresolved
        for cls, found in consumer_registry.dependencies().items()
        if found.unresolved
    }


def dotted(what: Any) -> str:
    """Return the dotted name of a class or of a method's observer."""
    return f"{what.__module__}.{what.__qualname__}"


def _of_consumer(cls: Any, model: type[Model]) -> Iterator[Watcher]:
    root, table = declared_model(cls), model._meta.db_table
    if root is None or not cls.observed_models():
        return
    name, (keyed, full_refresh) = dotted(cls), tables_of(root)
    if table == keyed[0]:
        yield Watcher(name, WatcherKind.OWN, cls, root)
    elif table in keyed:
        yield Watcher(name, WatcherKind.PART, cls, root)
    found: Dependencies = cls.observed_dependencies()
    for path in found.paths:
        if path.table == table:
            yield Watcher(name, WatcherKind.LINK, cls, root, path)
    if table in (*full_refresh, *(each._meta.db_table for each in found.full_refresh)):
        yield Watcher(name, WatcherKind.WIDE, cls, root)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReport:
    """
    How changes of a table travel.

    Attributes:
        channels: The channels on which the installed triggers notify.
        lacks_only_routes: Whether the triggers work, and only lack values of routes.
        replicated: Whether logical replication writes to the table.
    """

    registration: Registration
    status: Status
    channels: tuple[str, ...]
    lacks_only_routes: bool
    missing_routes: tuple[str, ...]
    replicated: bool
    watchers: tuple[Watcher, ...]

    @property
    def title(self) -> str:
        return self.registration.title

    def obstacles(self) -> Iterator[str]:
        """Yield what prevents the delivery of changes, in sentences."""
        if self.status.state is not State.OK and not self.lacks_only_routes:
            yield f"{self.status.sentence} ({self.status.detail})."
        channel = self.registration.channel
        for other in self.channels:
            if other != channel:
                yield (
                    f"The triggers of {self.title} notify on channel {other}, and feeds listen on "
                    f"{channel}: run manage.py pgobserve install {self.title}."
                )
        if self.replicated:
            yield (
                f"Logical replication writes to {self.status.table} and fires no statement-level "
                "triggers, so what it writes is not published."
            )
        observed = any(each.kind is WatcherKind.EVENTS for each in self.watchers)
        if observed and self.registration.transport != "outbox":
            yield (
                f"A model_observer observes {self.title}, whose changes do not go to the outbox: "
                "PGOBSERVE['MODELS'] sets another transport."
            )

    def remarks(self) -> Iterator[str]:
        """Yield further facts, in sentences."""
        if self.registration.compared is not None:
            columns = ", ".join(self.registration.compared) or "none of its columns"
            yield f"An UPDATE of {self.title} is published only if it changes {columns}, or the key."
        if self.missing_routes:
            yield (
                f"The triggers of {self.title} do not send {', '.join(self.missing_routes)}, so each "
                "change makes feeds read every row again that may show it: run manage.py pgobserve "
                f"install {self.title}."
            )


def of_model(case: Examination, label: str) -> list[TableReport]:
    """Return a report for each table that holds rows of a model, its own first."""
    registrations = targets.registrations([label], using=case.alias)
    statuses = survey.statuses(case.connection, [label])
    return [
        _report(case, registration, table, status)
        for registration, (table, status) in zip(registrations, statuses, strict=True)
    ]


def _report(
    case: Examination, registration: Registration, table: TableInfo | None, status: Status
) -> TableReport:
    on_table = case.triggers.get(table.oid, {}) if table is not None else {}
    comments = [each.comment for each in on_table.values() if each.comment is not None]
    oids = [] if table is None else [each.oid for each in (table, *table.parts)]
    return TableReport(
        registration=registration,
        status=status,
        channels=tuple(sorted({each.channel for each in comments})),
        lacks_only_routes=lacks_only_routes(registration, table, case.triggers),
        missing_routes=tuple(missing_routes(registration, table, case.triggers)),
        replicated=bool(subscribed(case, oids)),
        watchers=tuple(of_table(registration.model)),
    )
