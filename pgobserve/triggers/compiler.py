"""Compile a registration into the triggers that its table should have. Queries no database."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pgobserve.triggers import names
from pgobserve.triggers.bodies.trigger_body import first_body, writer_body
from pgobserve.triggers.trigger_values import Trigger
from pgobserve.wire import WITH_IMAGES, Operation

if TYPE_CHECKING:
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


def wanted(registration: Registration, table: TableInfo, *, always: bool) -> dict[str, Trigger]:
    """Return the triggers that a table and its partitions should have, by name."""
    registration = _without(table.virtual, registration)
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
    first = Trigger(
        name=namespace.trigger(operation),
        function=names.function(table.schema, table.name, operation),
        source=first_body(registration, operation, table),
        # Images are made with the rights of the role that writes: its types may run code.
        security_definer=to_outbox and not has_images,
        config=DEFINER_CONFIG if to_outbox and not has_images else (),
        **common,
    )
    if not has_images:
        return [first]
    writer = Trigger(
        name=namespace.writer(operation),
        function=names.function(table.schema, table.name, operation, writer=True),
        source=writer_body(registration, operation, table),
        security_definer=True,
        config=DEFINER_CONFIG,
        **common,
    )
    return [first, writer]


def _without(virtual: frozenset[str], registration: Registration) -> Registration:
    """Return a registration that needs no values of virtual columns, which transition tables lack."""
    if virtual.isdisjoint({*(registration.columns or ()), *registration.routes}):
        return registration
    routes = tuple(each for each in registration.routes if each not in virtual)
    return replace(registration, columns=None, routes=routes)
