"""
How rows of other tables belong to watched rows: by joins, which a reverse look-up follows backwards.

A serializer may show values of other tables, and a queryset may filter by them. A relation path leads
from the watched table to such a table. A reverse look-up resolves a changed row there to the watched
rows that look different now, appear, or disappear.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from pgobserve.sql.columns import server_name

if TYPE_CHECKING:
    from django.db.models import Field

    from pgobserve.hub.table_dependencies import TableDependencies
    from pgobserve.sql.keys import Model


@dataclass(frozen=True, slots=True)
class Join:
    """
    A join to the next table of a path.

    Attributes:
        model: The model of the joined table.
        on: Pairs of equal fields, of the previous table and of this one.
    """

    model: Model
    on: tuple[tuple[Field[Any, Any], Field[Any, Any]], ...]


@dataclass(frozen=True, slots=True)
class RelationPath:
    """
    The joins from a watched table to a table whose changes matter.

    Attributes:
        root: The watched model.
        joins: At least one join; the last one's table is the one whose changes matter.
        route: None if the last join follows a reference: a changed row's key resolves at any time.
            Otherwise the last table refers to the previous table by this field. Its rows may be moved or
            deleted, so only the field's old and new values in the change resolve.
    """

    root: Model
    joins: tuple[Join, ...]
    route: Field[Any, Any] | None = None
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.root, self.joins, self.route)))

    def __hash__(self) -> int:
        # Needed for each change, and fields hash slowly.
        return self._hash

    @property
    def table(self) -> str:
        """The table whose changes matter."""
        return self.joins[-1].model._meta.db_table

    @property
    def column(self) -> str | None:
        """The server's name of the column of :attr:`route`."""
        return None if self.route is None else server_name(str(self.route.column))


def paths_of(subject: TableDependencies) -> tuple[RelationPath, ...]:
    """Return relation paths with their full type; the hub knows only a protocol of them."""
    return cast("tuple[RelationPath, ...]", subject.paths)
