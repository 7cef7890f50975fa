"""What the stages of the write side hand each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgobserve.triggers.trigger_values import Comment, TableInfo, Trigger

TRIGGER = Trigger(name="pgobserve_i", function_schema="pgobserve", type=4, source="BEGIN END")


@pytest.mark.parametrize(
    "change",
    [
        {"type": 5},
        {"enabled": "A"},
        {"old_table": "x"},
        {"new_table": "x"},
        {"condition": True},
        {"columns": "1"},
        {"arguments": 1},
        {"function_schema": "public"},
        {"function": "x"},
        {"language": "sql"},
        {"source": "BEGIN  END"},
        {"security_definer": True},
        {"config": ("search_path=public",)},
    ],
)
def test_fingerprint_sees_every_field(change: dict[str, object]) -> None:
    """Each field of the catalog counts."""
    assert replace(TRIGGER, **change).fingerprint() != TRIGGER.fingerprint()  # type: ignore[arg-type]
    assert replace(TRIGGER).fingerprint() == TRIGGER.fingerprint()


@pytest.mark.parametrize("columns", [None, (), ("a", 'b"c', "é")])
def test_comment_comes_back(columns: tuple[str, ...] | None) -> None:
    """A comment that was written is read as it was."""
    comment = Comment(label="shop.order", columns=columns, always=True, fingerprint="abc")

    assert Comment.parse(comment.text()) == comment


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "somebody's note",
        "pgobserve:2:{}",
        "pgobserve:1:",
        "pgobserve:1:[]",
        "pgobserve:1:{}",
        'pgobserve:1:{"label": "a.b", "more": 1}',
    ],
)
def test_comment_of_others(text: str | None) -> None:
    """A comment that is not as we write it is none of ours."""
    assert Comment.parse(text) is None


def test_relation() -> None:
    """A relation is shown with its schema, and quoted where SQL is made."""
    table = TableInfo("Shop", "order")

    assert str(table) == "Shop.order"
    assert table.identifier.as_string(None) == '"Shop"."order"'
