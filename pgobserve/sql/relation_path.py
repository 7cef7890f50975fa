"""
How rows of other tables belong to watched rows: by which joins, and how a change finds its way back.

What a serializer shows, or a queryset filters by, may stand in other tables. A link is the way from
the watched table to one of those; followed backwards it leads from a changed row to the watched
rows that look different now, or that come or go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from django.db.models import Field

    from pgobserve.hub.table_dependencies import TableDependencies
    from pgobserve.sql.keys import Model


#: Bytes of an identifier that the server keeps (NAMEDATALEN - 1).
MAX_NAME: Final = 63


@dataclass(frozen=True, slots=True)
class Join:
    """
    One join.

    Attributes:
        model: The model whose table is joined.
        on: Pairs of fields that are equal: of the table before, of this one.
    """

    model: Model
    on: tuple[tuple[Field[Any, Any], Field[Any, Any]], ...]


@dataclass(frozen=True, slots=True)
class RelationPath:
    """
    The way from a watched table to another whose rows count as a part of it.

    Attributes:
        root: The watched model.
        joins: The joins; at least one. The last one's table is that whose changes matter.
        route: None where the last join leads to the one row that is referred to: which watched rows
            a changed one belongs to can be read at any time. A field of the last table where that
            table refers to the one before: a row of it may have been moved or deleted, so that only
            the old and new values of this field, told by the change, lead back.
    """

    root: Model
    joins: tuple[Join, ...]
    route: Field[Any, Any] | None = None
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.root, self.joins, self.route)))

    def __hash__(self) -> int:
        # Asked at each change; that of fields takes its time.
        return self._hash

    @property
    def table(self) -> str:
        """The table whose changes matter."""
        return self.joins[-1].model._meta.db_table

    @property
    def column(self) -> str | None:
        """The column of :attr:`route`, by the name that the server has for it."""
        return None if self.route is None else server_name(str(self.route.column))


def paths_of(subject: TableDependencies) -> tuple[RelationPath, ...]:
    """Return the relation paths of a subject, of which the hub knows a protocol only."""
    return cast("tuple[RelationPath, ...]", subject.paths)


def server_name(name: str) -> str:
    """Return the server's name for what Django calls by this one: unquoted, and cut."""
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = name[1:-1].replace('""', '"')
    return name.encode()[:MAX_NAME].decode(errors="ignore")
