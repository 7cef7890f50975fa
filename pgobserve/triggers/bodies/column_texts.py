"""
The text of columns' values, which must not depend on the settings of the writing session.

PostgreSQL's JSON has dates and times in ISO format under any setting. The text of most other types obeys
the session's settings. A trigger function sets those that its columns obey, if the session has others.
It does so in its body, because a ``SET`` clause costs more, with each call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import sql

from pgobserve.triggers.templates import render

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from pgobserve.triggers.trigger_values import ColumnInfo, TableInfo

#: Values of settings under which texts are equal; the first one is set where the session has others.
USUAL: Final[Mapping[str, tuple[str, ...]]] = {
    "DateStyle": ("ISO, MDY", "ISO, DMY", "ISO, YMD"),
    "IntervalStyle": ("postgres",),
    "TimeZone": ("UTC", "Etc/UTC"),
    "bytea_output": ("hex",),
    "extra_float_digits": ("1", "2", "3"),
    "lc_monetary": ("C",),
    "quote_all_identifiers": ("off",),
    "search_path": ("pg_catalog",),
}

_FLOATS: Final = ("float4", "float8", "path", "polygon", "circle", "line")
_NAMES: Final = ("class", "collation", "config", "dictionary", "namespace", "oper", "operator")
_MORE_NAMES: Final = ("proc", "procedure", "role", "type")

#: The settings that the text of a type obeys. Parts of types are types of their own: a point is of floats.
OBEYED: Final[Mapping[str, tuple[str, ...]]] = {
    "date": ("DateStyle",),
    "timestamp": ("DateStyle",),
    "timestamptz": ("DateStyle", "TimeZone"),
    "interval": ("IntervalStyle",),
    "bytea": ("bytea_output",),
    "money": ("lc_monetary",),
    **dict.fromkeys(_FLOATS, ("extra_float_digits",)),
    **{f"reg{each}": ("quote_all_identifiers", "search_path") for each in _NAMES + _MORE_NAMES},
    # A type that PostgreSQL does not have itself may obey any.
    "other": ("DateStyle", "IntervalStyle", "TimeZone", "bytea_output", "extra_float_digits"),
}

#: In JSON their text is that of ISO 8601, except within a range. A moment may have any time zone.
ISO_IN_JSON: Final = frozenset({"date", "timestamp", "timestamptz"})


def is_plain(table: TableInfo) -> bool:
    """Return whether PostgreSQL's JSON of a table's rows loses nothing."""
    return not any(each.is_virtual or each.has_own_json for each in table.types)


def text_of(alias: str, column: str, plain: Collection[str]) -> sql.Composable:
    """Return the text of a column of a transition table; the column itself if it is plain."""
    name = sql.Identifier(alias, column)
    return name if column in plain else _text(name, sql.SQL(' COLLATE pg_catalog."C"'))


def _text(name: sql.Composable, collation: sql.Composable = sql.SQL("")) -> sql.Composed:  # noqa: B008
    # What the output function returns; a cast to text may be another function. "IS NULL" is true for
    # rows of nulls, too.
    text = "CASE WHEN {0} IS DISTINCT FROM NULL THEN pg_catalog.concat({0}){1} END"
    return sql.SQL(text).format(name, collation)


def image(table: TableInfo, alias: str) -> sql.Composable:
    """
    Return the expression for a row's image, a JSON object.

    Columns with a JSON of their own have their text as a string: ``json`` may contain escapes that
    can't be read, and an extension's JSON can't be turned back. Virtual generated columns are left out,
    because transition tables don't have them.
    """
    if is_plain(table):
        return sql.SQL("pg_catalog.row_to_json({}.*)").format(sql.SQL(alias))
    columns = [each for each in table.types if not each.is_virtual]
    names = [sql.Identifier(each.name) for each in columns]
    # A column that was dropped since is found one level further out, where it is null.
    return sql.SQL(
        "(SELECT pg_catalog.row_to_json(r.*) FROM (SELECT {nulls}) AS d CROSS JOIN LATERAL "
        "(SELECT {values} FROM (SELECT {alias}.*) AS i) AS r)"
    ).format(
        nulls=_list(sql.SQL("NULL::pg_catalog.text AS {}").format(each) for each in names),
        values=_list(map(_value, columns)),
        alias=sql.SQL(alias),
    )


def image_settings(table: TableInfo) -> set[str]:
    """Return the settings that the images of a table's rows obey."""
    return {
        setting
        for column in table.types
        for each in column.types - (set() if _is_text(column) else ISO_IN_JSON)
        for setting in OBEYED.get(each, ())
    }


def column_settings(table: TableInfo, columns: Collection[str]) -> set[str]:
    """Return the settings that the texts of some columns obey."""
    types = {each for column in table.types if column.name in columns for each in column.types}
    return {setting for each in types for setting in OBEYED.get(each, ())}


def pins(settings: Collection[str]) -> dict[str, sql.Composable]:
    """Return the parts of a function that set settings for a while, empty if there are none."""
    if not settings:
        return dict.fromkeys(("settings", "pin", "unpin"), sql.SQL(""))
    names = sorted(settings)
    now = [sql.SQL("pg_catalog.current_setting({})").format(each) for each in names]
    usual = [
        sql.SQL("{} OPERATOR(pg_catalog.=) ANY (ARRAY[{}])").format(
            each, _list(map(sql.Literal, USUAL[name]))
        )
        for name, each in zip(names, now, strict=True)
    ]
    former = [sql.SQL(f"settings[{number}]") for number, _ in enumerate(names, 1)]
    pin = render(
        "pin.v1",
        usual=sql.SQL(" AND ").join(usual),
        names=_list(now),
        pinned=_set(names, [sql.Literal(USUAL[each][0]) for each in names]),
    )
    return {
        "settings": sql.SQL("  settings pg_catalog.text[];\n"),
        "pin": sql.SQL(pin + "\n"),
        "unpin": sql.SQL(render("unpin.v1", restored=_set(names, former)) + "\n"),
    }


def _is_text(column: ColumnInfo) -> bool:
    """Return whether an image has a column's dates, if any, as PostgreSQL's text."""
    return column.has_own_json or "range" in column.types


def _value(column: ColumnInfo) -> sql.Composable:
    name = sql.Identifier(column.name)
    if not column.has_own_json:
        return name
    return sql.SQL("{} AS {}").format(_text(name), name)


def _set(names: Iterable[str], values: Iterable[sql.Composable]) -> sql.Composable:
    return _list(
        sql.SQL("pg_catalog.set_config({}, {}, true)").format(*pair)
        for pair in zip(names, values, strict=True)
    )


def _list(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)
