"""The tables that SQL text reads: raw SQL, and queries that compile themselves, such as with CTEs."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from django.db.models.expressions import RawSQL
from django.db.models.sql.query import Query
from django.db.models.sql.where import ExtraWhere

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NAME: Final = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
#: A name after FROM, JOIN or a comma of a FROM list, and before neither a parenthesis nor a dot.
_TABLE: Final = re.compile(
    rf"(\bFROM|\bJOIN|,)\s+(?:(?:ONLY|LATERAL)\s+)?({_NAME}(?:\s*\.\s*{_NAME})*)(?![\w$]|\s*[(.])",
    re.IGNORECASE,
)
_CTE: Final = re.compile(
    rf"(?:\bWITH\s+(?:RECURSIVE\s+)?|,\s*)({_NAME})\s*(?:\([^()]*\)\s*)?AS\s+"
    r"(?:(?:NOT\s+)?MATERIALIZED\s+)?\(",
    re.IGNORECASE,
)
#: Comments, and strings, which may look like comments.
_IGNORED: Final = re.compile(r"('(?:[^']|'')*')|--[^\n]*|/\*.*?\*/", re.DOTALL)
#: Where FROM names no table.
_VALUES: Final = re.compile(
    r"'(?:[^']|'')*'|\bDISTINCT\s+FROM\b|\b(?:EXTRACT|SUBSTRING|TRIM|OVERLAY)\s*\([^()]*\)",
    re.IGNORECASE,
)


def tables_in(text: str) -> tuple[Counter[str], frozenset[str]]:
    """
    Return the names that are tables in SQL text, and names in lists that may be.

    Names of CTEs are left out. Of a name with a schema, the last part counts.
    """
    text = _VALUES.sub("''", _IGNORED.sub(r"\1 ", text))
    ctes = {_plain(name) for name in _CTE.findall(text)}
    found = [(_plain(re.findall(_NAME, name)[-1]), where) for where, name in _TABLE.findall(text)]
    found = [(name, where) for name, where in found if name not in ctes]
    sure = Counter(name for name, where in found if where != ",")
    return sure, frozenset(name for name, where in found if where == ",")


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def raw_texts(query: Any, nodes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Yield the raw SQL in a query, each with where it stands."""
    for node in nodes:
        if isinstance(node, RawSQL):
            yield "RawSQL", node.sql
        elif isinstance(node, ExtraWhere):
            yield "extra()", " ".join(node.sqls)
        elif "SELECT" in (template := _template(node)).upper():
            yield "a template", template
    if query.extra_tables:
        yield "extra()", f"SELECT FROM {', '.join(query.extra_tables)}"
    for text, _ in query.extra.values():
        yield "extra()", text


def _template(node: Any) -> str:
    given = getattr(node, "extra", None)
    own = given.get("template") if isinstance(given, dict) else None
    template = own or getattr(node, "template", None)
    return template if isinstance(template, str) else ""


def compiles_itself(query: Any) -> bool:
    """Return whether a query has a compiler of its own, so that it may read any table."""
    return any(
        getattr(type(query), name) is not getattr(Query, name)
        for name in ("get_compiler", "as_sql")
    )
