"""How changes of a model's tables are told, and to whom, for ``why``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgobserve.cli.doctor.table_health import is_only_untold, subscribed, untold
from pgobserve.cli.why import watchers
from pgobserve.install import survey, targets
from pgobserve.triggers.server.drift import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgobserve.cli.doctor.case import Examination
    from pgobserve.cli.why.watchers import Way
    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.server.drift import Status
    from pgobserve.triggers.trigger_values import TableInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """
    How changes of a table are told.

    Attributes:
        registration: How they should be.
        status: How its triggers stand.
        channels: The channels that these speak on.
        slow: They only don't tell which rows a related row belongs to.
        untold: The columns for that.
        replicated: Logical replication writes to it.
        ways: To whom.
    """

    registration: Registration
    status: Status
    channels: tuple[str, ...]
    slow: bool
    untold: tuple[str, ...]
    replicated: bool
    ways: tuple[Way, ...]

    @property
    def title(self) -> str:
        """Label of the model, for people."""
        return self.registration.title

    def obstacles(self) -> Iterator[str]:
        """Yield what keeps changes from being told, in sentences."""
        if self.status.state is not State.OK and not self.slow:
            yield f"{self.status.sentence} ({self.status.detail})."
        channel = self.registration.channel
        for other in self.channels:
            if other != channel:
                yield (
                    f"The triggers of {self.title} speak on channel {other}, and feeds listen on "
                    f"{channel}: run manage.py pgobserve install {self.title}."
                )
        if self.replicated:
            yield (
                f"Logical replication writes to {self.status.table}, and fires no triggers for "
                "statements: what it writes is not told."
            )
        if self.registration.transport != "outbox" and self._has_observers:
            yield (
                f"A model_observer is about {self.title}, and its changes don't go to the outbox: "
                "PGOBSERVE['MODELS'] says otherwise."
            )

    def remarks(self) -> Iterator[str]:
        """Yield what else there is to know."""
        if self.registration.told is not None:
            columns = ", ".join(self.registration.told) or "none of its columns"
            yield f"An UPDATE of {self.title} is told only if it changes {columns}, or the key."
        if self.untold:
            yield (
                f"The triggers of {self.title} don't tell {', '.join(self.untold)}, so at each change "
                f"all that may show it is read again: run manage.py pgobserve install {self.title}."
            )

    @property
    def _has_observers(self) -> bool:
        return any(way.kind is watchers.WatcherKind.EVENTS for way in self.ways)


def look(case: Examination, label: str) -> list[Told]:
    """
    Look at the tables that hold rows of a model, its own first.

    Raises:
        ConfigurationError: There is no such model, or not in this database.
    """
    registrations = targets.registrations([label], using=case.alias)
    seen = survey.take(case.connection, [label])
    return [
        _told(case, registration, table, status)
        for registration, (table, status) in zip(registrations, seen, strict=True)
    ]


def _told(
    case: Examination, registration: Registration, table: TableInfo | None, status: Status
) -> Told:
    on_table = case.found.get(table.oid, {}) if table is not None else {}
    comments = [each.comment for each in on_table.values() if each.comment is not None]
    oids = [] if table is None else [each.oid for each in (table, *table.parts)]
    return Told(
        registration=registration,
        status=status,
        channels=tuple(sorted({each.channel for each in comments})),
        slow=is_only_untold(registration, table, case.found),
        untold=tuple(untold(registration, table, case.found)),
        replicated=bool(subscribed(case, oids)),
        ways=tuple(watchers.of_table(registration.model)),
    )
