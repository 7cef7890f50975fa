"""Compile a registration into the triggers that its table should have. Queries no database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgobserve.triggers import names
from pgobserve.triggers.bodies.trigger_body import first_body, writer_body
from pgobserve.triggers.trigger_values import Trigger
from pgobserve.wire import WITH_IMAGES, Operation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.trigger_values import TableInfo

#: ``tgtype`` of an AFTER statement trigger is the bit of its event alone.
TYPES: Final = {
    Operation.INSERT: 4,
    Operation.DELETE: 8,
    Operation.UPDATE: 16,
    Operation.TRUNCATE: 32,
}
NEW_TABLE: Final = "pgobserve_new"
OLD_TABLE: Final = "pgobserve_old"

#: Set by ``function.v2``. Code that runs with its owner's rights must not find other roles' objects.
DEFINER_CONFIG: Final = ("search_path=pg_catalog, pg_temp",)

#: By field class, the session setting that would change the text of a row image.
FORMATS: Final[Mapping[str, str]] = {
    "FloatField": "extra_float_digits=1",
    "DurationField": "IntervalStyle=postgres",
    "BinaryField": "bytea_output=hex",
    "RangeField": "DateStyle=ISO, YMD",
}


def wanted(registration: Registration, table: TableInfo, *, always: bool) -> dict[str, Trigger]:
    """Return the triggers that a table and its partitions should have, by name."""
    triggers = [
        trigger
        for operation in Operation
        for trigger in _of_operation(registration, table, operation, enabled="A" if always else "O")
    ]
    return {each.name: each for each in triggers}


def _of_operation(
    registration: Registration, table: TableInfo, operation: Operation, *, enabled: str
) -> list[Trigger]:
    namespace = registration.namespace
    common: dict[str, Any] = {
        "enabled": enabled,
        "function_schema": namespace.schema,
        "type": TYPES[operation],
        "old_table": OLD_TABLE if operation in "UD" else None,
        "new_table": NEW_TABLE if operation in "IU" else None,
    }
    to_outbox = registration.transport == "outbox"
    has_images = to_outbox and operation in WITH_IMAGES
    formats = _formats(registration) if has_images else ()
    first = Trigger(
        name=namespace.trigger(operation),
        function=names.function(table.schema, table.name, operation),
        source=first_body(registration, operation, table),
        # Images are made with the rights of the role that writes: its types may run code.
        security_definer=to_outbox and not has_images,
        config=DEFINER_CONFIG if to_outbox and not has_images else formats,
        **common,
    )
    if not has_images:
        return [first]
    writer = Trigger(
        name=namespace.writer(operation),
        function=names.function(table.schema, table.name, operation, writer=True),
        source=writer_body(registration, operation, table),
        security_definer=True,
        config=(*DEFINER_CONFIG, *formats),
        **common,
    )
    return [first, writer]


def _formats(registration: Registration) -> tuple[str, ...]:
    """Return the settings under which row images are made."""
    classes: set[str] = set()
    for field in registration.model._meta.local_concrete_fields:
        each: Any = field
        while each is not None:
            classes.update(base.__name__ for base in type(each).__mro__)
            each = getattr(each, "base_field", None)  # of an array
    return tuple(setting for name, setting in FORMATS.items() if name in classes)
