"""The library's tables, for as long as a test needs them."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final

from django.db import connection

from tests.bookshelf.models import (
    Author,
    Book,
    Category,
    Comment,
    Contribution,
    Copy,
    Cover,
    Ebook,
    Fine,
    Imprint,
    Label,
    Loan,
    Place,
    Publisher,
    Shop,
    Tag,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.db.models import Model

#: In the order in which they can be made.
ALL: Final[Sequence[type[Model]]] = (
    Publisher,
    Imprint,
    Author,
    Category,
    Tag,
    Label,
    Book,
    Contribution,
    Ebook,
    Cover,
    Comment,
    Place,
    Shop,
    Copy,
    Loan,
    Fine,
)


@contextmanager
def library() -> Iterator[None]:
    """Make the tables, and drop them at the end."""
    make, drop = _statements()
    _execute(make)
    try:
        yield
    finally:
        _execute(drop)


@cache
def _statements() -> tuple[str, str]:
    """Return what makes the tables, and what drops them. Each is sent at once: tests do it often."""
    with connection.schema_editor(collect_sql=True) as editor:
        for model in ALL:
            editor.create_model(model)
        # What is deferred to the end of the block belongs to it.
        made = [*editor.collected_sql, *(f"{each};" for each in editor.deferred_sql)]
    throughs = [m2m.remote_field.through for model in ALL for m2m in model._meta.local_many_to_many]
    tables = {connection.ops.quote_name(each._meta.db_table) for each in (*throughs, *ALL)}
    return "\n".join(made), f"DROP TABLE IF EXISTS {', '.join(sorted(tables))} CASCADE"


def _execute(script: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(script)
