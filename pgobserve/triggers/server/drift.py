"""Compare the installed triggers with the wanted ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS

from pgobserve.triggers import compiler
from pgobserve.triggers.server import catalog

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.trigger_values import CatalogEntry, Comment, TableInfo, Trigger


class State(StrEnum):
    """The state of a table's triggers, the worst first."""

    NOT_A_TABLE = "not a table"
    MISSING = "missing"
    DISABLED = "disabled"
    NO_OUTBOX = "no outbox"
    TAMPERED = "tampered"
    OUTDATED = "outdated"
    LEAF_MISSING = "leaf missing"
    COLUMNS = "columns"
    KEY = "key"
    CLASH = "clash"
    ORPHAN = "orphan"
    OK = "ok"


#: What relations without triggers are called.
KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}

_SENTENCES = {
    State.NOT_A_TABLE: "Changes of {title} can't be observed: it is not a table, and no command helps",
    State.COLUMNS: "The columns option of {title} leaves out columns that consumers read",
    State.KEY: "The key of {title} is not unique in the database",
    State.MISSING: "Changes of {title} are not observed yet",
    State.DISABLED: "A trigger on the table of {title} is disabled, so changes are not published",
    State.NO_OUTBOX: "The outbox for changes of {title} is damaged or outdated",
    State.TAMPERED: "A trigger of {title} was changed since it was installed",
    State.OUTDATED: "The triggers of {title} do not match this version and the model",
    State.LEAF_MISSING: "A partition of {title} has no triggers, so writes to it are not published",
    State.CLASH: "Another project has triggers in the namespace of this one",
    State.ORPHAN: "A table without a model has our triggers",
    State.OK: "Changes of {title} are observed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """
    The status of one table.

    Attributes:
        title: Label of the model; of an orphan, the label in its triggers' comments.
        table: Schema and name of the table; the model's table name if it does not exist.
        detail: What differs; empty if nothing does.
        always: Whether the triggers fire under ``session_replication_role = replica`` too.
        parts: Number of partitions.
        transport: The wanted transport.
        advice: The remedy, where no command helps.
    """

    title: str
    table: str
    state: State
    detail: str = ""
    always: bool = False
    parts: int = 0
    transport: str = "notify"
    using: str = DEFAULT_DB_ALIAS
    advice: str = ""

    @property
    def sentence(self) -> str:
        """The problem, with the command that fixes it."""
        text = _SENTENCES[self.state].format(title=self.title)
        if self.command:
            return f"{text}: run {self.command}"
        return f"{text}. {self.advice}" if self.advice else f"{text}."

    @property
    def remedy(self) -> str:
        """The remedy, in a sentence."""
        if self.advice:
            return self.advice
        if self.state is State.CLASH:
            return (
                "Set PGOBSERVE['NAMESPACE'] in one of the two projects: run uninstall there, set it, "
                "and run install."
            )
        return f"Run {self.command}."

    @property
    def command(self) -> str:
        """The command that fixes the table; empty if none does."""
        database = "" if self.using == DEFAULT_DB_ALIAS else f" --database {self.using}"
        if self.state in _WITHOUT_COMMAND:
            return ""
        if self.state is State.ORPHAN:
            return f"manage.py pgobserve uninstall --orphans{database}"
        return f"manage.py pgobserve install {self.title}{database}"


#: States of tables whose triggers are as wanted.
INSTALLED = (State.OK, State.COLUMNS, State.KEY)

_WITHOUT_COMMAND = (State.OK, State.CLASH, State.NOT_A_TABLE, State.COLUMNS, State.KEY)


def compare(
    registration: Registration,
    table: TableInfo | None,
    installed: Mapping[int, Mapping[str, CatalogEntry]],
    *,
    using: str = DEFAULT_DB_ALIAS,
    outbox: str = "",
) -> Status:
    """
    Compare the triggers of one table with its registration.

    Args:
        table: The table; None if it does not exist.
        installed: Our triggers, from :func:`pgobserve.triggers.server.catalog.triggers`.
        outbox: The outbox's problem, from :func:`pgobserve.triggers.server.outbox_storage.problem`.
    """
    status = Status(
        title=registration.title,
        table=registration.model._meta.db_table if table is None else str(table),
        state=State.MISSING,
        detail=f"there is no table {registration.table}: run manage.py migrate first",
        transport=registration.transport,
        using=using,
    )
    if table is None:
        return status
    if is_covered(table, registration.declared):
        return replace(status, state=State.OK, detail="")
    if table.kind not in catalog.TRIGGERABLE:
        return _not_a_table(status, table)
    always = is_always(registration, installed.get(table.oid, {}))
    wanted = compiler.wanted(registration, table, always=always)
    state, detail = _worst(registration, table, wanted, installed)
    if outbox and registration.transport == "outbox":
        state, detail = min((state, detail), (State.NO_OUTBOX, outbox), key=_severity)
    status = replace(status, state=state, detail=detail, always=always, parts=len(table.parts))
    return _assumptions(status, registration, table) if state is State.OK else status


def is_covered(table: TableInfo, declared: Collection[str]) -> bool:
    """Return whether tables that are declared in a view's place are all that it reads."""
    return table.kind == "v" and bool(table.behind) and set(table.behind) <= {*declared}


def _not_a_table(status: Status, table: TableInfo) -> Status:
    """Return the status of a view and the like."""
    what = f"{table} is {KINDS.get(table.kind, 'not a table')}, which can't have our triggers"
    advice = "Let the consumer read tables instead."
    if table.kind == "v" and table.behind:
        labels = [label_of(name) for name in table.behind]
        advice = (
            f"Name the tables that it reads in observe_related of the consumer: {labels}. Then each of "
            "their changes makes the server read the view again."
        )
    return replace(status, state=State.NOT_A_TABLE, detail=what, advice=advice)


def label_of(table: str) -> str:
    """Return the label of the model of a table, or the table's name."""
    models = apps.get_models(include_auto_created=True)
    found = (each._meta.label for each in models if each._meta.db_table == table)
    return next(found, table)


def _assumptions(status: Status, registration: Registration, table: TableInfo) -> Status:
    """Return the status of a table whose triggers are as wanted, but not sufficient."""
    compared = registration.compared
    left_out = set() if compared is None else {*registration.read} - {*compared, *registration.key}
    if left_out:
        names = ", ".join(sorted(left_out))
        readers = ", ".join(sorted({each for name in left_out for each in registration.read[name]}))
        return replace(
            status,
            state=State.COLUMNS,
            detail=f"an UPDATE of {names} alone is not published, and {readers} reads it",
            advice=(
                f"Add {names} to PGOBSERVE['MODELS']['{registration.title}']['columns'], and run "
                f"manage.py pgobserve install {registration.title}."
            ),
        )
    key = frozenset(registration.key)
    # A unique index of a partitioned table must have the partition key, too.
    sets = table.unique or ()
    fits = any(each <= key or (table.kind == "p" and key <= each) for each in sets)
    if table.unique is not None and not fits:
        return replace(
            status,
            state=State.KEY,
            detail=f"{table} has no unique index on {', '.join(sorted(key))}",
            advice=(
                "Subscribers would receive one of several rows with the same key. Make it unique "
                "(ALTER TABLE … ADD PRIMARY KEY), or give the model its real key."
            ),
        )
    return status


def is_always(registration: Registration, on_table: Mapping[str, CatalogEntry]) -> bool:
    """Return whether triggers should always fire: as registered, else as installed."""
    if registration.always is not None:
        return registration.always
    return any(each.comment is not None and each.comment.always for each in on_table.values())


def _worst(
    registration: Registration,
    table: TableInfo,
    wanted: Mapping[str, Trigger],
    installed: Mapping[int, Mapping[str, CatalogEntry]],
) -> tuple[State, str]:
    unknown = sorted(registration.needed - table.columns)
    problems = _problems(registration, table, wanted, installed.get(table.oid, {}))
    for part in table.parts:
        if part.kind not in catalog.TRIGGERABLE:
            detail = f"{part} is a foreign table, which can't have triggers: detach it"
            problems.append((State.LEAF_MISSING, detail))
            continue
        for state, detail in _problems(registration, part, wanted, installed.get(part.oid, {})):
            leaf_state = State.LEAF_MISSING if state is State.MISSING else state
            problems.append((leaf_state, detail))
    if unknown and not any(state is State.MISSING for state, _ in problems):
        detail = f"{table} has no column {', '.join(unknown)}: run manage.py migrate first"
        return State.OUTDATED, detail
    return min(problems, key=_severity, default=(State.OK, ""))


def _severity(problem: tuple[State, str]) -> int:
    return list(State).index(problem[0])


def _problems(
    registration: Registration,
    table: TableInfo,
    wanted: Mapping[str, Trigger],
    on_table: Mapping[str, CatalogEntry],
) -> list[tuple[State, str]]:
    problems = []
    if missing := sorted(set(wanted) - set(on_table)):
        # A table that was installed for NOTIFY lacks only the triggers that write to the outbox.
        writers = set(registration.namespace.writers)
        state = State.OUTDATED if writers.issuperset(missing) else State.MISSING
        problems.append((state, f"{table} lacks {', '.join(missing)}"))
    for name, each in on_table.items():
        if name not in wanted:
            problems.append((State.OUTDATED, f"{table} has {name}, which it no longer needs"))
        elif each.trigger != wanted[name]:
            state = _difference(each)
            detail = _missing_values(registration, each) if state is State.OUTDATED else ""
            problems.append((state, f"{name} on {table}{detail}"))
    return problems


def _missing_values(registration: Registration, entry: CatalogEntry) -> str:
    """Describe the route values that a trigger does not send; to the outbox it writes all."""
    if entry.comment is None or {registration.transport, entry.comment.transport} != {"notify"}:
        return ""
    lacking = [each for each in registration.routes if each not in entry.comment.routes]
    if not lacking:
        return ""
    return (
        f" does not send the values of {', '.join(lacking)}, so each change makes the server read "
        "every watched row again that may depend on it"
    )


def _difference(entry: CatalogEntry) -> State:
    """Return the state of a trigger that differs from the wanted one."""
    if entry.trigger.enabled in "DR":
        return State.DISABLED
    if entry.comment is None or entry.comment.fingerprint != entry.trigger.fingerprint():
        return State.TAMPERED
    return State.OUTDATED


def is_other_project(comment: Comment, project: str) -> bool:
    """Return whether a comment names another project; a project without a name matches any."""
    return bool(comment.project and project) and comment.project != project


def orphans(
    installed: Mapping[int, Mapping[str, CatalogEntry]],
    known: frozenset[int],
    schemas: frozenset[str],
    *,
    using: str = DEFAULT_DB_ALIAS,
) -> list[Status]:
    """
    Return a status for each table with our triggers and without a model.

    Args:
        installed: All our triggers.
        known: Object ids of the models' tables and their partitions.
        schemas: The schemas of this project's tables; others may be another project's.
    """
    lost = []
    for oid, on_table in installed.items():
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
