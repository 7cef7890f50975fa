"""The library's tables, for as long as a test needs them."""

from __future__ import annotations

from contextlib import contextmanager
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
    with connection.schema_editor() as editor:
        for model in ALL:
            editor.create_model(model)
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            for model in reversed(ALL):
                editor.delete_model(model)
