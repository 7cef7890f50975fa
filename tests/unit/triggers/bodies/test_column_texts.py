"""Texts of columns: which settings a function sets, and what an image has of each type."""

from __future__ import annotations

from itertools import chain

from pgobserve.triggers.bodies import column_texts
from pgobserve.triggers.trigger_values import ColumnInfo, TableInfo


def table(**types: set[str]) -> TableInfo:
    """Return a table of columns with these types."""
    columns = tuple(ColumnInfo(name, frozenset(each)) for name, each in types.items())
    return TableInfo("public", "t", types=columns)


def test_every_setting_has_a_usual_value() -> None:
    """What a type obeys can be set."""
    assert set(chain(*column_texts.OBEYED.values())) == column_texts.USUAL.keys()


def test_most_tables_need_no_setting() -> None:
    """JSON has moments in the ISO format, whatever the session's settings."""
    plain = table(id={"int8"}, made={"timestamptz"}, facts={"jsonb"}, days={"date"})

    assert column_texts.image_settings(plain) == set()
    assert column_texts.image(plain, "n").as_string(None) == "pg_catalog.row_to_json(n.*)"
    assert {part.as_string(None) for part in column_texts.pins(set()).values()} == {""}


def test_settings() -> None:
    """An image obeys what its columns' texts do; in a text, moments obey settings, too."""
    assert column_texts.image_settings(table(a={"float8"}, b={"interval"})) == {
        "extra_float_digits",
        "IntervalStyle",
    }
    assert column_texts.image_settings(table(a={"range", "timestamptz"})) == {
        "DateStyle",
        "TimeZone",
    }
    assert column_texts.image_settings(table(a={"json", "date"})) == {"DateStyle"}
    assert column_texts.column_settings(table(a={"date"}, b={"money"}), ["a"]) == {"DateStyle"}


def test_json_of_its_own() -> None:
    """A column whose JSON is not its text is in the image as text; virtual columns are not there."""
    made = table(id={"int8"}, tags={"json"})
    made = TableInfo("public", "t", types=(*made.types, ColumnInfo("sum", is_virtual=True)))
    text = column_texts.image(made, "o").as_string(None)

    assert 'pg_catalog.concat("tags")' in text
    assert "sum" not in text
    assert made.virtual == {"sum"}


def test_pins() -> None:
    """A session's settings are changed only if they are others, and are set again."""
    pins = column_texts.pins({"TimeZone", "DateStyle"})
    pin, unpin = (pins[name].as_string(None) for name in ("pin", "unpin"))

    assert "current_setting('TimeZone') OPERATOR(pg_catalog.=) ANY (ARRAY['UTC', 'Etc/UTC'])" in pin
    assert "pg_catalog.set_config('DateStyle', 'ISO, MDY', true)" in pin
    assert "pg_catalog.set_config('TimeZone', settings[2], true)" in unpin
