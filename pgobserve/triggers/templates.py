"""The SQL and migration templates: files that are reviewed, versioned and shipped."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import sql

from pgobserve.errors import TemplatesMissing

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


@cache
def root() -> Traversable:
    """
    Return the directory of the templates: inside the package in a wheel, beside it in a checkout.

    Raises:
        TemplatesMissing: It is in neither place.
    """
    packaged = resources.files("pgobserve") / "migrations_templates"
    if packaged.is_dir():
        return packaged
    checkout = Path(__file__).resolve().parents[2] / "migrations_templates"
    if checkout.is_dir():
        return checkout
    raise TemplatesMissing(
        f"The SQL templates are neither at {packaged} nor at {checkout}: "
        "this installation of pgobserve is incomplete, install it again."
    )


@cache
def read(name: str) -> str:
    """Return the text of a template, e.g. ``sql/notify.v1.sql``."""
    return root().joinpath(*name.split("/")).read_text(encoding="utf-8").rstrip("\n")


def render(name: str, **parts: sql.Composable | str | float | None) -> str:
    """
    Fill a template of ``sql/`` and return the text.

    Args:
        name: Name of the template without folder and suffix, e.g. ``notify.v1``.
        **parts: Values of the placeholders: SQL as it is, anything else as a literal.
    """
    composed = {
        key: part if isinstance(part, sql.Composable) else sql.Literal(part)
        for key, part in parts.items()
    }
    return sql.SQL(read(f"sql/{name}.sql")).format(**composed).as_string(None)
