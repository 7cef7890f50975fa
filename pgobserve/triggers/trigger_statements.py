"""The SQL statements that install, update and remove triggers. Queries no database."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from psycopg import sql

from pgobserve.triggers import compiler, names, outbox_statements
from pgobserve.triggers.bodies.trigger_body import payload_parts
from pgobserve.triggers.templates import render
from pgobserve.triggers.trigger_values import Comment
from pgobserve.wire import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.trigger_values import TableInfo, Trigger
    from pgobserve.wire import Namespace

_EVENTS: Final = {kind: operation.name for operation, kind in compiler.TYPES.items()}


def install_statements(
    registration: Registration,
    table: TableInfo,
    *,
    always: bool,
    unused: Iterable[str] = (),
    home: str = "",
) -> Iterator[str]:
    """
    Yield the statements that install a table's triggers, or bring them up to date.

    Args:
        always: Whether to fire under ``session_replication_role = replica`` too.
        unused: Functions of the present triggers that the new ones no longer call.
        home: First schema of the installing role's ``search_path``, for the comments.
    """
    namespace = registration.namespace
    schema = names.schema(namespace)
    triggers = compiler.wanted(registration, table, always=always)
    yield lock_statement(namespace)
    yield schema_statement(namespace)
    if registration.transport == "outbox":
        yield from outbox_statements.storage_statements(namespace)
    for trigger in triggers.values():
        yield _function(trigger)
        if registration.transport == "outbox":
            function = sql.Identifier(trigger.function)
            yield render("revoke_function.v1", schema=schema, function=function)
    comment = _comment(registration, always=always, home=home)
    for trigger in triggers.values():
        yield from _trigger(table.identifier, trigger, comment)
        if table.kind == "p":
            yield from _on_partitions(table, trigger, comment)
    for name in unused:
        yield _drop_function(name, namespace)


def announcements(registration: Registration) -> Iterator[str]:
    """
    Yield the statements that make readers read the table again.

    The table may be new, or may have been without triggers for a while.
    """
    if registration.transport == "outbox":
        yield render(
            "announce_outbox.v1",
            schema=names.schema(registration.namespace),
            label=registration.label,
        )
    yield render("announce.v1", **payload_parts(registration, Operation.UPDATE))


def uninstall_statements(
    tables: Iterable[TableInfo], functions: Iterable[str], namespace: Namespace
) -> Iterator[str]:
    """Yield the statements that remove a namespace's triggers, functions, and schema if empty."""
    yield lock_statement(namespace)
    for relation in tables:
        for name in namespace.all_triggers:
            yield render("drop_trigger.v1", trigger=sql.Identifier(name), table=relation.identifier)
    for function in functions:
        yield _drop_function(function, namespace)
    yield from outbox_statements.drop_statements(namespace, only_unused=True)
    yield render("drop_schema.v1", schema=names.schema(namespace))


def lock_statement(namespace: Namespace) -> str:
    """Return the statement that makes sessions install one after another, if the schema exists."""
    return render("serialize.v1", schema=names.schema(namespace), comment=names.SCHEMA_COMMENT)


def schema_statement(namespace: Namespace) -> str:
    """Return the statement that creates the schema, or fails if other roles control part of it."""
    return render(
        "schema.v1",
        schema=names.schema(namespace),
        strangers=sql.SQL(foreign_query(namespace, sql.SQL("CURRENT_USER"))),
        comment=names.SCHEMA_COMMENT,
    )


def foreign_query(namespace: Namespace, role: sql.Composable) -> str:
    """Return the query for what roles other than superusers and ``role`` control in the schema."""
    return render("strangers.v1", schema=names.schema(namespace), role=role)


def _drop_function(name: str, namespace: Namespace) -> str:
    schema = names.schema(namespace)
    return render("drop_function.v1", schema=schema, function=sql.Identifier(name))


def _function(trigger: Trigger) -> str:
    tag = "$pgobserve$"
    while tag in trigger.source:  # A column may have that name.
        tag = f"${tag.strip('$')}_$"
    return render(
        "function.v2" if trigger.security_definer else "function.v1",
        schema=sql.SQL(trigger.function_schema),
        function=sql.Identifier(trigger.function),
        config=sql.SQL("".join(f"\n  SET {each.replace('=', ' = ')}" for each in trigger.config)),
        tag=sql.SQL(tag),
        body=sql.SQL(trigger.source),
    )


def _on_partitions(table: TableInfo, trigger: Trigger, comment: Comment) -> Iterator[str]:
    # The statement looks partitions up when it runs: a migration runs long after it was written.
    mark = sql.SQL("\0")
    for statement in _trigger(mark, trigger, comment):
        text = statement.replace("%", "%%").replace("\0", "%s")
        root = table.identifier.as_string(None)
        yield render("each_partition.v1", root=root, statement=text)


def _trigger(table: sql.Composable, trigger: Trigger, comment: Comment) -> Iterator[str]:
    name = sql.Identifier(trigger.name)
    yield render(
        "trigger.v1",
        trigger=name,
        table=table,
        event=sql.SQL(_EVENTS[trigger.type]),
        transition_tables=sql.SQL(_referencing(trigger)),
        schema=sql.SQL(trigger.function_schema),
        function=sql.Identifier(trigger.function),
    )
    if comment.always:
        yield render("enable_always.v1", trigger=name, table=table)
    text = replace(comment, fingerprint=trigger.fingerprint()).text()
    yield render("comment.v1", trigger=name, table=table, comment=text)


def _comment(registration: Registration, *, always: bool, home: str) -> Comment:
    return Comment(
        label=registration.label,
        columns=registration.columns,
        always=always,
        transport=registration.transport,
        channel=registration.channel,
        wake=registration.wake,
        routes=registration.routes,
        project=registration.project,
        home=home,
    )


def _referencing(trigger: Trigger) -> str:
    parts = []
    if trigger.old_table:
        parts.append(f"OLD TABLE AS {trigger.old_table}")
    if trigger.new_table:
        parts.append(f"NEW TABLE AS {trigger.new_table}")
    return "\n  REFERENCING " + " ".join(parts) if parts else ""
