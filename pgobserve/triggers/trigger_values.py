"""What the write side's stages hand each other: tables and triggers, wanted or found."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field

from psycopg import sql


@dataclass(frozen=True, slots=True)
class TableInfo:
    """
    A table as the catalog has it.

    Attributes:
        schema: Name of its schema, not quoted.
        name: Its name, not quoted.
        kind: ``relkind``: ``r`` table, ``p`` partitioned table, ``v`` view, ``f`` foreign table …
        columns: Names of its columns.
        parts: Its partitions on every level, if it is partitioned.
        oid: Its object id; 0 if it was not read from a catalog.
    """

    schema: str
    name: str
    kind: str = "r"
    columns: frozenset[str] = frozenset()
    parts: tuple[TableInfo, ...] = ()
    oid: int = 0

    @property
    def identifier(self) -> sql.Identifier:
        """The quoted, schema-qualified name."""
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """
    A trigger and its function, field by field as the catalog keeps them.

    Raw fields and not ``pg_get_triggerdef()``, whose text differs between major versions.

    Attributes:
        name: ``tgname``.
        type: ``tgtype``, a bit mask of level, timing and events.
        enabled: ``tgenabled``: ``O`` origin, ``A`` always, ``R`` replica, ``D`` disabled.
        old_table: Name of the transition table with the old rows.
        new_table: Name of the transition table with the new rows.
        condition: Whether there is a WHEN clause; ours have none.
        columns: ``UPDATE OF`` columns; ours have none.
        arguments: Number of arguments; ours have none.
        function_schema: Schema of the function.
        function: Name of the function.
        language: Language of the function.
        source: Body of the function.
        security_definer: Whether it runs with its owner's rights.
        config: ``SET`` clauses of the function.
    """

    name: str
    type: int
    enabled: str = "O"
    old_table: str | None = None
    new_table: str | None = None
    condition: bool = False
    columns: str = ""
    arguments: int = 0
    function_schema: str
    function: str = ""
    language: str = "plpgsql"
    source: str = ""
    security_definer: bool = False
    config: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """Return a short digest of all fields."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """
    A trigger of ours that the catalog has.

    Attributes:
        trigger: The trigger.
        table: Where it is.
        comment: What we wrote beside it when it was installed; None if that is gone.
    """

    trigger: Trigger
    table: TableInfo
    comment: Comment | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """
    What the comment on a trigger records: for whom it was made, and what it was then.

    Attributes:
        label: Label of the model.
        columns: The columns whose changes are told; None means all.
        always: Whether it was enabled for replication as well.
        transport: How changes travel.
        channel: The NOTIFY channel.
        fingerprint: Digest of the trigger as it was installed.
        wake: How readers of the outbox are woken.
        routes: The columns whose old and new values are told.
        project: What the project that installed it is called; empty if that is not known.
        home: The schema that it was installed from, as ``search_path`` says; empty for ``public``.
    """

    PREFIX = "pgobserve:1:"

    label: str
    columns: tuple[str, ...] | None = field(default=None)
    always: bool = False
    transport: str = "notify"
    channel: str = "pgobserve"
    fingerprint: str = ""
    wake: str = "notify"
    routes: tuple[str, ...] = ()
    project: str = ""
    home: str = ""

    def text(self) -> str:
        """Return the comment's text."""
        fields = asdict(self)
        for name in ("routes", "project", "home"):
            if not fields[name]:
                del fields[name]
        return self.PREFIX + json.dumps(fields, ensure_ascii=False, sort_keys=True)

    @classmethod
    def parse(cls, text: str | None) -> Comment | None:
        """Read a comment's text; None if it is not ours, or not as we wrote it."""
        if text is None or not text.startswith(cls.PREFIX):
            return None
        try:
            fields = json.loads(text.removeprefix(cls.PREFIX))
            columns = fields.pop("columns", None)
            routes = tuple(fields.pop("routes", ()))
            return cls(columns=None if columns is None else tuple(columns), routes=routes, **fields)
        except (ValueError, TypeError, AttributeError):
            return None
