"""System checks: settings and consumers at every start, triggers with ``check --database``."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import Error as DatabaseError
from django.db import connections

from pgobserve import conf
from pgobserve.dependencies import row_dependencies
from pgobserve.errors import ConfigurationError, PgObserveError
from pgobserve.install import consumer_registry, outbox_report, survey, targets
from pgobserve.triggers.server.drift import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgobserve.triggers.server.drift import Status
    from pgobserve.triggers.trigger_values import TableInfo

#: The identifiers, as ``SILENCED_SYSTEM_CHECKS`` takes them.
BAD_SETTINGS = "pgobserve.E001"
NOT_CHECKED = "pgobserve.W002"
BAD_RELATED = "pgobserve.E003"
OUTBOX = "pgobserve.W018"
STATES = {
    State.MISSING: "pgobserve.W011",
    State.OUTDATED: "pgobserve.W012",
    State.TAMPERED: "pgobserve.W013",
    State.DISABLED: "pgobserve.W014",
    State.LEAF_MISSING: "pgobserve.W015",
    State.ORPHAN: "pgobserve.W016",
    State.NO_OUTBOX: "pgobserve.W017",
    State.CLASH: "pgobserve.W019",
}


@register()
def check_settings(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    """Check that ``PGOBSERVE`` can be used as it is."""
    try:
        conf.get()
        outbox_report.check_settings()
        targets.named()
    except PgObserveError as error:
        return [Error(str(error), hint="Correct the setting PGOBSERVE.", id=BAD_SETTINGS)]
    return []


@register()
def check_consumers(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    """Check that what the consumers declare in ``observe_related`` is there."""
    # Whether they can be imported is found out soon enough.
    with suppress(ConfigurationError):
        targets.import_consumers()
    found: list[CheckMessage] = []
    for consumer_class in consumer_registry.consumers():
        try:
            row_dependencies.check(consumer_class)
        except ConfigurationError as error:
            name = f"{consumer_class.__module__}.{consumer_class.__qualname__}"
            hint = "Correct observe_related."
            found.append(Error(str(error), hint=hint, obj=name, id=BAD_RELATED))
    return found


@register(Tags.database)
def check_triggers(
    app_configs: object, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check the triggers of all that is observed; ``migrate`` does this too, before it begins."""
    found: list[CheckMessage] = []
    for using in databases or ():
        if connections[using].vendor == "postgresql":
            found += _check_database(using)
    return found


def _check_database(using: str) -> list[CheckMessage]:
    try:
        connection = targets.connect(using)
        seen = survey.take(connection)
        facts = outbox_report.look(connection)
    except (PgObserveError, DatabaseError) as error:
        text = f"The triggers of the database {using!r} could not be checked: {error}"
        return [Warning(text, id=NOT_CHECKED)]
    warnings = [] if facts is None else outbox_report.warnings(facts)
    return [
        *(Warning(f"{text}.", obj=f"database {using!r}", id=OUTBOX) for text in warnings),
        *_messages(seen),
    ]


def _messages(seen: Sequence[tuple[TableInfo | None, Status]]) -> list[CheckMessage]:
    return [
        _message(status)
        for table, status in seen
        # A table that is not there yet is for migrate to make, and tells us afterwards.
        if status.state is not State.OK and (table is not None or status.state is State.CLASH)
    ]


def _message(status: Status) -> CheckMessage:
    return Warning(
        f"{status.sentence.partition(': run')[0]}: {status.detail}.",
        hint=status.remedy,
        obj=status.title,
        id=STATES[status.state],
    )
