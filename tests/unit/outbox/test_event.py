"""Folding, against a model: a table, and what a transaction does to it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgobserve.outbox.event import (
    EventAction,
    RowChange,
    TableChange,
    fold,
)

KEYS = st.integers(0, 3)
VALUES = st.integers(0, 2)
LABELS = st.sampled_from(["a", "b"])

Table = dict[tuple[str, int], int]


@st.composite
def histories(draw: st.DrawFn) -> tuple[Table, Table, list[RowChange]]:
    """A table before and after a transaction, and what the transaction did."""
    before: Table = draw(st.dictionaries(st.tuples(LABELS, KEYS), VALUES))
    now = dict(before)
    changes = []
    for number in range(draw(st.integers(0, 12))):
        name = label, key = draw(LABELS), draw(KEYS)
        old = now.get(name)
        new = draw(VALUES) if old is None else draw(st.none() | VALUES)
        changes.append(RowChange(label, key, old, new, number))
        if new is None:
            del now[name]
        else:
            now[name] = new
    return before, now, changes


@given(histories())
def test_leads_from_before_to_after(history: tuple[Table, Table, list[RowChange]]) -> None:
    """What is left leads from the table before to the table after, with one change for a row."""
    before, after, changes = history
    folded = fold(changes)
    table = dict(before)
    for change in folded:
        assert isinstance(change, RowChange)
        name = (change.label, change.key)
        assert change.old == table.pop(name, None)  # type: ignore[arg-type]
        if change.new is not None:
            table[name] = change.new  # type: ignore[index]

    assert table == after
    names = [(change.label, change.key) for change in folded]  # type: ignore[union-attr]
    assert len(names) == len(set(names))
    assert all(change.old != change.new for change in folded)  # type: ignore[union-attr]


@given(histories())
def test_order_is_that_of_the_last_changes(
    history: tuple[Table, Table, list[RowChange]],
) -> None:
    """A row comes where it was changed last."""
    times = [change.at for change in fold(history[2])]

    assert times == sorted(times)


@given(histories(), st.integers(0, 12))
def test_table_change_covers_what_was_before(
    history: tuple[Table, Table, list[RowChange]], position: int
) -> None:
    """Of a table that may have changed altogether only what came after is told, others' all."""
    changes = history[2]
    first, second = changes[:position], changes[position:]
    mark = TableChange("a", 99)
    folded = fold([*first, mark, *second])

    assert [c for c in folded if c.label == "a"] == [
        mark,
        *fold(c for c in second if c.label == "a"),
    ]
    assert [c for c in folded if c.label == "b"] == fold(c for c in changes if c.label == "b")


def test_create_update() -> None:
    """Created and updated is created, as it is in the end."""
    (change,) = fold([RowChange("a", 1, None, "x"), RowChange("a", 1, "x", "y")])

    assert isinstance(change, RowChange)
    assert (change.action, change.old, change.new) == (EventAction.CREATE, None, "y")


def test_create_delete() -> None:
    """Created and deleted is nothing."""
    assert fold([RowChange("a", 1, None, "x"), RowChange("a", 1, "x", None)]) == []


def test_update_delete() -> None:
    """Updated and deleted is deleted, as it was before."""
    (change,) = fold([RowChange("a", 1, "x", "y"), RowChange("a", 1, "y", None)])

    assert isinstance(change, RowChange)
    assert (change.action, change.old, change.new) == (EventAction.DELETE, "x", None)


def test_delete_create() -> None:
    """Deleted and created anew is updated."""
    (change,) = fold([RowChange("a", 1, "x", None), RowChange("a", 1, None, "y")])

    assert isinstance(change, RowChange)
    assert (change.action, change.old, change.new) == (EventAction.UPDATE, "x", "y")


def test_back_and_forth() -> None:
    """Changed and changed back is nothing."""
    assert fold([RowChange("a", 1, "x", "y"), RowChange("a", 1, "y", "x")]) == []


def test_changed_key() -> None:
    """Another key is a row that is gone, and one that comes."""
    changes = [RowChange("a", 1, "x", None), RowChange("a", 2, None, "x")]

    assert [c.action for c in fold(changes)] == [EventAction.DELETE, EventAction.CREATE]  # type: ignore[union-attr]
