"""Judge what the catalog has against what is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from django.db import DEFAULT_DB_ALIAS

from pgobserve.triggers import compiler
from pgobserve.triggers.server import catalog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.trigger_values import (
        CatalogEntry,
        Comment,
        TableInfo,
        Trigger,
    )


class State(StrEnum):
    """How a table's triggers stand, the worst first."""

    MISSING = "missing"
    DISABLED = "disabled"
    NO_OUTBOX = "no outbox"
    TAMPERED = "tampered"
    OUTDATED = "outdated"
    LEAF_MISSING = "leaf missing"
    CLASH = "clash"
    ORPHAN = "orphan"
    OK = "ok"


_SENTENCES = {
    State.MISSING: "Changes of {title} are not observed yet",
    State.DISABLED: "A trigger on the table of {title} is disabled, so changes are not told",
    State.NO_OUTBOX: "The outbox that changes of {title} are written to is not as it must be",
    State.TAMPERED: "A trigger of {title} was changed by somebody else since it was installed",
    State.OUTDATED: "The triggers of {title} are not those that this version and model want",
    State.LEAF_MISSING: "A partition of {title} has no triggers, so writes to it are not told",
    State.CLASH: "Another project has triggers in the namespace of this one",
    State.ORPHAN: "A table that belongs to no model has our triggers",
    State.OK: "Changes of {title} are observed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """
    How one table stands.

    Attributes:
        title: Label of the model for people; of an orphan, the label that it was made for.
        table: Schema and name of the table; the name asked for if there is none.
        state: The state.
        detail: What exactly was found; empty if all is well.
        always: Whether the triggers fire for replication as well.
        parts: Number of partitions.
        transport: How changes are to travel.
        using: Alias of the database.
    """

    title: str
    table: str
    state: State
    detail: str = ""
    always: bool = False
    parts: int = 0
    transport: str = "notify"
    using: str = DEFAULT_DB_ALIAS

    @property
    def sentence(self) -> str:
        """What is the matter, with the command that mends it."""
        text = _SENTENCES[self.state].format(title=self.title)
        return f"{text}: run {self.command}" if self.command else f"{text}."

    @property
    def remedy(self) -> str:
        """What to do, in a sentence."""
        if self.state is State.CLASH:
            return (
                "Set PGOBSERVE['NAMESPACE'] in one of the two projects: run uninstall there, set it, "
                "and run install."
            )
        return f"Run {self.command}."

    @property
    def command(self) -> str:
        """The command that mends it; empty if all is well."""
        database = "" if self.using == DEFAULT_DB_ALIAS else f" --database {self.using}"
        if self.state in (State.OK, State.CLASH):
            return ""
        if self.state is State.ORPHAN:
            return f"manage.py pgobserve uninstall --orphans{database}"
        return f"manage.py pgobserve install {self.title}{database}"


def judge(
    registration: Registration,
    table: TableInfo | None,
    found: Mapping[int, Mapping[str, CatalogEntry]],
    *,
    using: str = DEFAULT_DB_ALIAS,
    outbox: str = "",
) -> Status:
    """
    Judge one table.

    Args:
        registration: What is wanted.
        table: The table, None if there is none.
        found: All triggers of ours, as :func:`pgobserve.triggers.server.catalog.triggers` returns them.
        using: Alias of the database, for the message.
        outbox: What is wrong with the outbox, as :func:`pgobserve.triggers.outbox_storage.problem` says.
    """
    if table is None:
        detail = f"there is no table {registration.table}: run manage.py migrate first"
        return Status(
            title=registration.title,
            table=registration.model._meta.db_table,
            state=State.MISSING,
            detail=detail,
            transport=registration.transport,
            using=using,
        )
    always = is_always(registration, found.get(table.oid, {}))
    wanted = compiler.wanted(registration, table, always=always)
    state, detail = _worst(registration, table, wanted, found)
    order = list(State)
    if outbox and registration.transport == "outbox":
        state, detail = min(
            [(state, detail), (State.NO_OUTBOX, outbox)], key=lambda each: order.index(each[0])
        )
    return Status(
        title=registration.title,
        table=str(table),
        state=state,
        detail=detail,
        always=always,
        parts=len(table.parts),
        transport=registration.transport,
        using=using,
    )


def is_always(registration: Registration, on_table: Mapping[str, CatalogEntry]) -> bool:
    """Say whether the triggers should fire always: as registered, else as they were installed."""
    if registration.always is not None:
        return registration.always
    return any(each.comment is not None and each.comment.always for each in on_table.values())


def _worst(
    registration: Registration,
    table: TableInfo,
    wanted: Mapping[str, Trigger],
    found: Mapping[int, Mapping[str, CatalogEntry]],
) -> tuple[State, str]:
    unknown = sorted(registration.needed - table.columns)
    problems = _problems(registration, table, wanted, found.get(table.oid, {}))
    for part in table.parts:
        if part.kind not in catalog.TRIGGERABLE:
            detail = f"{part} is a foreign table, which can't have triggers: detach it"
            problems.append((State.LEAF_MISSING, detail))
            continue
        for state, detail in _problems(registration, part, wanted, found.get(part.oid, {})):
            told = State.LEAF_MISSING if state is State.MISSING else state
            problems.append((told, detail))
    if unknown and not any(state is State.MISSING for state, _ in problems):
        detail = f"{table} has no column {', '.join(unknown)}: run manage.py migrate first"
        return State.OUTDATED, detail
    order = list(State)
    return min(problems, key=lambda p: order.index(p[0]), default=(State.OK, ""))


def _problems(
    registration: Registration,
    table: TableInfo,
    wanted: Mapping[str, Trigger],
    on_table: Mapping[str, CatalogEntry],
) -> list[tuple[State, str]]:
    problems = []
    if missing := sorted(set(wanted) - set(on_table)):
        # Those that write to the outbox are what a table lacks that was installed without.
        writers = set(registration.namespace.writers)
        state = State.OUTDATED if writers.issuperset(missing) else State.MISSING
        problems.append((state, f"{table} lacks {', '.join(missing)}"))
    for name, each in on_table.items():
        if name not in wanted:
            problems.append((State.OUTDATED, f"{table} has {name}, which it needs no more"))
        elif each.trigger != wanted[name]:
            state = _why(each)
            detail = _untold(registration, each) if state is State.OUTDATED else ""
            problems.append((state, f"{name} on {table}{detail}"))
    return problems


def _untold(registration: Registration, found: CatalogEntry) -> str:
    """Say which values a trigger does not tell; with the outbox it tells all."""
    if found.comment is None or {registration.transport, found.comment.transport} != {"notify"}:
        return ""
    lacking = [each for each in registration.routes if each not in found.comment.routes]
    if not lacking:
        return ""
    return (
        f" does not tell the values of {', '.join(lacking)}, so whatever is watched that a row of "
        "it may belong to is read again at each change"
    )


def _why(found: CatalogEntry) -> State:
    """Say why a trigger is not the one that is wanted."""
    if found.trigger.enabled in "DR":
        return State.DISABLED
    if found.comment is None or found.comment.fingerprint != found.trigger.fingerprint():
        return State.TAMPERED
    return State.OUTDATED


def is_others(comment: Comment, project: str) -> bool:
    """Say whether a comment names another project than this one; without a name nobody knows."""
    return bool(comment.project and project) and comment.project != project


def orphans(
    found: Mapping[int, Mapping[str, CatalogEntry]],
    known: frozenset[int],
    schemas: frozenset[str],
    *,
    using: str = DEFAULT_DB_ALIAS,
) -> list[Status]:
    """
    Return the tables with triggers of ours that belong to no model.

    Args:
        found: All triggers of ours.
        known: Object ids of the tables, partitions included, that belong to models.
        schemas: The schemas that this project's tables are in; others may be another project's.
        using: Alias of the database, for the message.
    """
    lost = []
    for oid, on_table in found.items():
        table = next(iter(on_table.values())).table
        if oid not in known and table.schema in schemas:
            labels = (each.comment.label for each in on_table.values() if each.comment)
            lost.append(
                Status(
                    title=next(labels, "?"),
                    table=str(table),
                    state=State.ORPHAN,
                    detail=f"{table} has our triggers and no model",
                    using=using,
                )
            )
    return lost
