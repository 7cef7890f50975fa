"""
Which rows were on a list at an earlier time: its own SQL, run on rows as they were.

The outbox has the rows' images. A common table expression of the table's name takes its place, so
that the SQL finds the images there and nothing else.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from django.db import DatabaseError, transaction
from django.db.models import Func, Subquery, Transform
from django.db.models.functions import Now, Random
from django.db.models.sql.query import Query

from pgobserve.dependencies.of_queryset import of_queryset
from pgobserve.dependencies.relations import concrete
from pgobserve.outbox.event import changes_in
from pgobserve.outbox.fold import TableChange
from pgobserve.sql.join_sql import keys_from, quoted
from pgobserve.sql.keys import key_fields
from pgobserve.sql.model_tables import tables_of
from pgobserve.sql.own_rows import has_own_rows

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import QuerySet

    from pgobserve.outbox.outbox_page import OutboxRecord
    from pgobserve.outbox.row_images import Image

logger = logging.getLogger(__name__)

#: Whose expressions say the same of a row at any time, but for those that look at the clock.
_OURS: Final = ("django.db.models.", "django.contrib.postgres.")
_FICKLE: Final = (Now, Random)
_FICKLE_NAMES: Final = frozenset({"TransactionNow", "RandomUUID", "UUID4", "UUID7"})

_SHADOWED: Final = (
    "WITH {table} AS (SELECT image.* FROM pg_catalog.json_array_elements(%s::json) AS listed(value),"
    " LATERAL pg_catalog.json_populate_record(NULL::{table}, listed.value) AS image) "
)

#: Rows of partitions can come and go as a whole, and policies don't look at images.
_PLAIN: Final = """
SELECT count(*) FROM pg_catalog.pg_class c
 WHERE c.oid = pg_catalog.to_regclass(%s)::pg_catalog.oid AND c.relkind = 'r'
   AND NOT (c.relrowsecurity OR c.relispartition)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid)
"""


@dataclass(frozen=True, slots=True)
class Past:
    """
    What became of the rows of a list since some time.

    Attributes:
        touched: Keys of the rows that were written since.
        had: Those of them that were on the list then.
        passing: Those that are known to have been on it later, for a while at least.
    """

    touched: frozenset[Hashable]
    had: frozenset[Hashable]
    passing: frozenset[Hashable]


class OldRows:
    """
    A list's queryset, to be asked about rows as they were.

    Args:
        queryset: The list's.
    """

    def __init__(self, queryset: QuerySet[Any]) -> None:
        self._queryset: Any = queryset
        self._model = concrete(queryset.model)

    @cached_property
    def decides_alone(self) -> bool:
        """Whether a row's own columns decide if it is on the list, now as at any time."""
        table = self._model._meta.db_table
        return (
            tables_of(self._model) == ((table,), ())
            and not has_own_rows(self._queryset)
            and '"' not in table
            and not of_queryset(self._queryset)
            and all(map(_is_lasting, _nodes(self._queryset.query)))
        )

    def past(self, entries: Iterable[OutboxRecord], connection: BaseDatabaseWrapper) -> Past | None:
        """
        Return what became of the list's rows; within the transaction that reads the list.

        Args:
            entries: All that was done to the table since, with row images.
            connection: Of the database alias.

        Returns:
            None if it can't be told.
        """
        first: dict[Hashable, Image | None] = {}
        later: dict[Hashable, list[Image]] = {}
        for change in (change for entry in entries for change in changes_in(entry)):
            if isinstance(change, TableChange):
                return None
            first.setdefault(change.key, change.old)
            if change.new is not None:
                later.setdefault(change.key, []).append(change.new)
        had = self._listed([each for each in first.values() if each is not None], connection)
        if had is None:
            return None
        rest = (image for key, found in later.items() if key not in had for image in found)
        passing = self._listed(list(rest), connection)
        if passing is None:
            return None
        return Past(frozenset(first), frozenset(had), frozenset(passing))

    def _listed(
        self, images: Sequence[Image], connection: BaseDatabaseWrapper
    ) -> set[Hashable] | None:
        """Return the keys of the rows that would be on the list."""
        if not images:
            return set()
        table = self._model._meta.db_table
        name = quoted(table, connection).as_string()
        fields = [field.attname for field in key_fields(self._model)]
        asked = self._queryset.order_by().values_list(*fields).using(connection.alias)
        compiler = asked.query.get_compiler(using=connection.alias, elide_empty=False)
        text, params = compiler.as_sql()
        try:
            with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
                cursor.execute(_PLAIN, [connection.ops.quote_name(table)])
                if cursor.fetchone() != (1,):
                    return None
                cursor.execute(
                    _SHADOWED.format(table=name) + text,
                    [f"[{','.join(image.text for image in images)}]", *params],
                )
                return set(keys_from(self._model, cursor.fetchall(), connection))
        except (DatabaseError, ValueError) as error:
            if connection.connection is None or connection.connection.closed:
                raise
            logger.debug(
                "Rows of %s as they were can't be read: %s", self._model._meta.label, error
            )
            return None


def _nodes(query: Any) -> Iterator[Any]:
    """Yield all expressions of a query that has no other inside."""
    waiting: list[Any] = [query.where, *query.annotations.values()]
    while waiting:
        node = waiting.pop()
        yield node
        if hasattr(node, "children"):
            waiting += node.children
        elif hasattr(node, "lhs"):
            right = getattr(node, "rhs", None)
            waiting += [node.lhs, *(right if isinstance(right, list | tuple) else [right])]
            waiting += getattr(node, "bilateral_transforms", ())
        if hasattr(node, "get_source_expressions"):
            waiting += node.get_source_expressions()


def _is_lasting(node: Any) -> bool:
    """Tell whether a part of a query says the same of a row at any time, as far as is known."""
    if isinstance(node, Query | Subquery):
        return False
    cls = node if isinstance(node, type) else type(node)
    if not (hasattr(node, "as_sql") or (isinstance(node, type) and issubclass(node, Transform))):
        return True  # a value
    return (
        cls.__module__.startswith(_OURS)
        and not issubclass(cls, _FICKLE)
        and cls.__name__ not in _FICKLE_NAMES
        # Some function of the server's, by its name.
        and cls is not Func
        and not {"function", "template"} & getattr(node, "extra", {}).keys()
    )
