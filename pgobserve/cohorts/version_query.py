"""A cohort that reads only the versions of rows, for consumers that read and show rows themselves."""

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

    from pgobserve.dependencies.relations import Through
    from pgobserve.sql.keys import Model

#: The rows that belong to an owner in a through table, and the transactions that wrote them.
_THROUGH_ROWS: Final = (
    "coalesce((SELECT string_agg(t.ctid::text || t.xmin::text, ' ' ORDER BY t.ctid)"
    " FROM {} t WHERE t.{} = {}), '')"
)


class _Version(Expression):
    """The transactions that wrote a row, its parent rows and its rows in through tables."""

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
            column: Any = through.model._meta.get_field(through.attname)
            parts.append(_THROUGH_ROWS.format(table, quote(column.column), owner))
        return " || ' ' || ".join(parts), []


def version_cohort(cls: type, model: Model, throughs: Sequence[Through]) -> Cohort:
    """
    Return a cohort of versions.

    Args:
        cls: The consumer's class.
        model: The model of the rows.
        throughs: The through tables whose rows count as parts of a row.
    """
    version: Any = _Version(model, throughs)
    queryset: Any = model._base_manager.annotate(**{VERSION: version})
    alias = alias_of(queryset)
    statement = KeyedQuery(queryset, connections[alias])
    subject = subject_of(model, row_dependencies.of_consumer(cls))
    return Cohort(alias, statement, VersionRenderer(), subject)
