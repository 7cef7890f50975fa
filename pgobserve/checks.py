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
from pgobserve.install import (
    consumer_registry,
    former_hooks,
    orm_caches,
    outbox_report,
    survey,
    targets,
    unseen_tables,
)
from pgobserve.triggers.server.drift import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgobserve.triggers.server.drift import Status
    from pgobserve.triggers.trigger_values import TableInfo

#: Identifiers for ``SILENCED_SYSTEM_CHECKS``.
BAD_SETTINGS = "pgobserve.E001"
NOT_CHECKED = "pgobserve.W002"
BAD_RELATED = "pgobserve.E003"
OUTBOX = "pgobserve.W018"
ORM_CACHE = "pgobserve.W040"
IN_VAIN = "pgobserve.W020"
NOT_SEEN = "pgobserve.W024"
STATES = {
    State.MISSING: "pgobserve.W011",
    State.OUTDATED: "pgobserve.W012",
    State.TAMPERED: "pgobserve.W013",
    State.DISABLED: "pgobserve.W014",
    State.LEAF_MISSING: "pgobserve.W015",
    State.ORPHAN: "pgobserve.W016",
    State.NO_OUTBOX: "pgobserve.W017",
    State.CLASH: "pgobserve.W019",
    State.NOT_A_TABLE: "pgobserve.W021",
    State.COLUMNS: "pgobserve.W022",
    State.KEY: "pgobserve.W023",
}


@register()
def check_settings(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    """Check ``PGOBSERVE``."""
    try:
        conf.get()
        outbox_report.check_settings()
        targets.named()
    except PgObserveError as error:
        return [Error(str(error), hint="Correct the setting PGOBSERVE.", id=BAD_SETTINGS)]
    return []


@register()
def check_consumers(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    """Check that the relations in ``observe_related`` exist, and that overridden methods are called."""
    # A failing import shows when the server starts.
    with suppress(ConfigurationError):
        targets.import_consumers()
    messages: list[CheckMessage] = []
    for consumer_class in consumer_registry.consumers():
        try:
            row_dependencies.check(consumer_class)
        except ConfigurationError as error:
            name = f"{consumer_class.__module__}.{consumer_class.__qualname__}"
            hint = "Correct observe_related."
            messages.append(Error(str(error), hint=hint, obj=name, id=BAD_RELATED))
    return [*messages, *_overridden_in_vain()]


def _overridden_in_vain() -> list[CheckMessage]:
    observers = {type(each): former_hooks.OF_OBSERVERS for each in consumer_registry.observers()}
    consumers = dict.fromkeys(consumer_registry.consumers(), former_hooks.OF_CONSUMERS)
    found = dict(
        each
        for cls, known in (observers | consumers).items()
        for each in former_hooks.in_vain(cls, known)
    )
    return [
        Warning(f"{name} of DCRF is overridden, but never called.", hint=hint, id=IN_VAIN)
        for name, hint in sorted(found.items())
    ]


@register()
def check_caches(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    """Check that the ORM reads observed tables from the database."""
    messages: list[CheckMessage] = []
    with suppress(ConfigurationError):
        for registration in targets.registrations():
            if found := orm_caches.cache_of(registration.model):
                package, remedy = found
                text = (
                    f"{package} caches rows of {registration.title}. After changes that it does not "
                    "notice, such as those by SQL, subscribers receive nested rows from its cache."
                )
                messages.append(Warning(text, hint=remedy, obj=registration.title, id=ORM_CACHE))
    return messages


@register(Tags.database)
def check_triggers(
    app_configs: object, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check all triggers; ``migrate`` runs this check too, before it starts."""
    return [
        message
        for using in databases or ()
        if connections[using].vendor == "postgresql"
        for message in _check_database(using)
    ]


def _check_database(using: str) -> list[CheckMessage]:
    try:
        connection = targets.connect(using)
        seen = survey.statuses(connection)
        facts = outbox_report.read_status(connection)
    except (PgObserveError, DatabaseError) as error:
        text = f"The triggers of the database {using!r} could not be checked: {error}"
        return [Warning(text, id=NOT_CHECKED)]
    warnings = [] if facts is None else outbox_report.warnings(facts)
    return [
        *(Warning(f"{text}.", obj=f"database {using!r}", id=OUTBOX) for text in warnings),
        *_messages(seen),
        *(
            Warning(text, obj=f"database {using!r}", id=NOT_SEEN)
            for text in unseen_tables.of(using)
        ),
    ]


def _messages(seen: Sequence[tuple[TableInfo | None, Status]]) -> list[CheckMessage]:
    return [
        _message(status)
        for table, status in seen
        # migrate creates a missing table, and another check follows.
        if status.state is not State.OK and (table is not None or status.state is State.CLASH)
    ]


def _without_command(status: Status) -> str:
    return f"{status.sentence.partition(': run')[0]}: {status.detail}."


def _message(status: Status) -> CheckMessage:
    return Warning(
        f"{status.title}: {status.detail}." if status.advice else _without_command(status),
        hint=status.remedy,
        obj=status.title,
        id=STATES[status.state],
    )
