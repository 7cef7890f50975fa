"""Whether a row is there, and in which version: all that consumers need who read it by themselves."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from django.db import connections
from django.db.models import Expression, TextField

from pgobserve.cohorts.cohort import Cohort, alias_of, subject_of
from pgobserve.dependencies import row_dependencies
from pgobserve.render.rendering import VERSION, VersionRenderer
from pgobserve.sql.keyed_query import KeyedQuery
from pgobserve.sql.model_tables import tables_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgobserve.dependencies.through_tables import Through
    from pgobserve.sql.keys import Model


class _Versions(Expression):
    """The system column ``xmin`` of joined tables and of a row's rows between many and many."""

    def __init__(self, model: Model, throughs: Sequence[Through]) -> None:
        super().__init__(output_field=TextField())
        self.model = model
        self.throughs = throughs

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:  # type: ignore[override]
        quote = connection.ops.quote_name
        parts = [f"{quote(name)}.xmin::text" for name in chain(*tables_of(self.model))]
        for through in self.throughs:
            table = quote(through.model._meta.db_table)
            target: Any = self.model._meta.get_field(through.target)
            owner = f"{quote(target.model._meta.db_table)}.{quote(target.column)}"
            named: Any = through.model._meta.get_field(through.attname)
            parts.append(_ROWS_BETWEEN.format(table, quote(named.column), owner))
        return " || ' ' || ".join(parts), []


#: Which rows of the owner there are, and which transactions wrote them.
_ROWS_BETWEEN: Final = (
    "coalesce((SELECT string_agg(t.ctid::text || t.xmin::text, ' ' ORDER BY t.ctid)"
    " FROM {} t WHERE t.{} = {}), '')"
)


def version_cohort(cls: type, model: Model, throughs: Sequence[Through]) -> Cohort:
    """
    Return a source of versions.

    Args:
        cls: The consumer's class.
        model: Of the rows.
        throughs: What counts as a part of such a row: its rows in these tables.
    """
    # The transactions that wrote the row, and the parent rows of multi-table inheritance.
    version: Any = _Versions(model, throughs)
    queryset: Any = model._base_manager.annotate(**{VERSION: version})
    alias = alias_of(queryset)
    statement = KeyedQuery(queryset, connections[alias])
    subject = subject_of(model, row_dependencies.of_consumer(cls))
    return Cohort(alias, statement, VersionRenderer(), subject)
