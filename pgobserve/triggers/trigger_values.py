"""Tables and triggers as values, wanted or installed."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from django.db import models
from psycopg import sql

from pgobserve.triggers import names

if TYPE_CHECKING:
    from django.db.models import Model

#: The label and the channel in the body of a trigger function.
_LABEL: Final = re.compile(r'\{"v":\d+,"t":("(?:[^"\\]|\\.)+")')
_CHANNEL: Final = re.compile(r"pg_notify\(\s*'([^']+)'")

#: Types whose JSON PostgreSQL does not always turn back: ``json`` may have escapes that can't be read.
OWN_JSON: Final = frozenset({"json", "int2vector", "oidvector"})

#: Types whose text and JSON are alike under all settings.
PLAIN: Final = frozenset({"int2", "int4", "int8", "uuid"})


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """
    A column in the catalog.

    Attributes:
        types: Names of PostgreSQL's own types that its type consists of. ``range`` stands for any range
            type, ``json`` for any type whose JSON is not its text, ``other`` for a type of an extension.
        is_virtual: Whether its values are computed when they are read.
    """

    name: str
    types: frozenset[str] = frozenset()
    is_virtual: bool = False

    @property
    def has_own_json(self) -> bool:
        """Whether PostgreSQL can't turn the JSON of its values back."""
        return not OWN_JSON.isdisjoint(self.types)


@dataclass(frozen=True, slots=True)
class TableInfo:
    """
    A table in the catalog.

    Attributes:
        schema: Name of its schema, not quoted.
        name: Its name, not quoted.
        kind: ``relkind``: ``r`` table, ``p`` partitioned table, ``v`` view, ``f`` foreign table …
        types: Its columns, in their order; empty if they were not read from a catalog.
        parts: Its partitions on every level.
        oid: Its object id; 0 if it was not read from a catalog.
        unique: Sets of columns that are unique together; None if it was not read from a catalog.
        behind: Names of the tables that a view reads.
    """

    schema: str
    name: str
    kind: str = "r"
    types: tuple[ColumnInfo, ...] = ()
    parts: tuple[TableInfo, ...] = ()
    oid: int = 0
    unique: frozenset[frozenset[str]] | None = None
    behind: tuple[str, ...] = ()

    @property
    def columns(self) -> frozenset[str]:
        """Names of its columns."""
        return frozenset(each.name for each in self.types)

    def plain(self, model: type[Model]) -> frozenset[str]:
        """
        Return its columns of integers and UUIDs, whose text and JSON are alike under all settings.

        Args:
            model: Its model, by whose fields it goes if the columns were not read from a catalog.
        """
        if any(each.types for each in self.types):
            return frozenset(each.name for each in self.types if each.types and each.types <= PLAIN)
        fields = model._meta.local_concrete_fields
        return frozenset(names.column(str(each.column)) for each in fields if _is_plain(each))

    @property
    def virtual(self) -> frozenset[str]:
        """Names of its virtual generated columns, which transition tables don't have."""
        return frozenset(each.name for each in self.types if each.is_virtual)

    @property
    def identifier(self) -> sql.Identifier:
        """The quoted, schema-qualified name."""
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def _is_plain(field: Any) -> bool:
    while (target := getattr(field, "target_field", field)) is not field:
        field = target
    return isinstance(field, models.IntegerField | models.UUIDField)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """
    A trigger and its function, field by field as in the catalog.

    The text of ``pg_get_triggerdef()`` differs between major versions, so it is not compared.

    Attributes:
        type: ``tgtype``, a bit mask of level, timing and events.
        enabled: ``tgenabled``: ``O`` origin, ``A`` always, ``R`` replica, ``D`` disabled.
        old_table: Name of the transition table with the old rows, and ``new_table`` of the new.
        condition: Whether it has a WHEN clause; ours have none.
        columns: ``UPDATE OF`` columns; ours have none.
        arguments: Number of arguments; ours have none.
        source: Body of the function.
        security_definer: Whether the function runs with its owner's rights.
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
    """An installed trigger of ours, with the comment of its installation; None if that is lost."""

    trigger: Trigger
    table: TableInfo
    comment: Comment | None

    @property
    def target(self) -> tuple[str, str] | None:
        """
        Label and channel of the payloads, as the function's body has them; None if it has none.

        Dumps can be restored without comments, by ``pg_restore --no-comments``.
        """
        label, channel = (each.search(self.trigger.source) for each in (_LABEL, _CHANNEL))
        if label is None or channel is None:
            return None
        # A literal with backslashes has them doubled.
        return json.loads(label[1].replace(2 * "\\", "\\")), channel[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """
    The comment on a trigger, which records its registration.

    Attributes:
        fingerprint: Digest of the installed trigger.
        home: First schema of the installing role's ``search_path``; empty for ``public``.

    The other fields are those of :class:`pgobserve.triggers.registry.Registration`.
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
        """Parse the text of a comment; return None if it is not ours or was edited."""
        if text is None or not text.startswith(cls.PREFIX):
            return None
        try:
            fields = json.loads(text.removeprefix(cls.PREFIX))
            columns = fields.pop("columns", None)
            routes = tuple(fields.pop("routes", ()))
            return cls(columns=None if columns is None else tuple(columns), routes=routes, **fields)
        except (ValueError, TypeError, AttributeError):
            return None
