"""How changes of a model's tables travel, and to which watchers, for ``why``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgobserve.cli.doctor.table_health import lacks_only_routes, missing_routes, subscribed
from pgobserve.cli.why import watchers
from pgobserve.install import survey, targets
from pgobserve.triggers.server.drift import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgobserve.cli.doctor.case import Examination
    from pgobserve.cli.why.watchers import Watcher
    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.server.drift import Status
    from pgobserve.triggers.trigger_values import TableInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReport:
    """
    How changes of a table travel.

    Attributes:
        registration: The table's registration.
        status: The status of its triggers.
        channels: The channels on which the installed triggers notify.
        lacks_only_routes: Whether the triggers work, and only lack values of routes.
        missing_routes: The routes whose values they lack.
        replicated: Whether logical replication writes to the table.
        watchers: The consumers and observers that watch it.
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
        """The model's label."""
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
        observed = any(each.kind is watchers.WatcherKind.EVENTS for each in self.watchers)
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
    """
    Return a report for each table that holds rows of a model, its own first.

    Raises:
        ConfigurationError: The model does not exist, or is not in this database.
    """
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
        watchers=tuple(watchers.of_table(registration.model)),
    )
