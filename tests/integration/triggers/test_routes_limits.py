"""Payloads fit, however many keys and values there are, and however long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.triggers.bodies import trigger_body
from pgobserve.wire import MAX_KEYS
from tests.integration.triggers.routed import chapters, raw, told_by

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from tests.integration.triggers.conftest import Ear

__all__ = ["chapters", "raw"]  # fixtures


@pytest.mark.usefixtures("chapters")
@pytest.mark.parametrize("books", [1, 3, MAX_KEYS])
def test_many_rows(ear: Ear, run: Callable[..., Any], books: int) -> None:
    """Up to the limit all keys and values are sent; above it, a mark of the whole table."""
    everything = {"book": list(range(books))}
    keys = list(range(1, MAX_KEYS + 1))
    insert = "INSERT INTO project_raw SELECT i, i %% %s FROM generate_series(1, %s) i"
    run(insert, books, MAX_KEYS)
    run("UPDATE project_raw SET book = book + 20000")
    run("DELETE FROM project_raw")
    moved = [each + 20000 for each in everything["book"]]

    assert told_by(ear, "book") == [
        ("I", keys, everything),
        ("U", keys, {"book": [*everything["book"], *moved]}),
        ("D", keys, {"book": moved}),
    ]
    for count in (MAX_KEYS + 1, 100_000):
        run(insert, books, count)
        run("UPDATE project_raw SET book = 5 WHERE id = 1")
        run("UPDATE project_raw SET name = 'x'")
        run("DELETE FROM project_raw")
        told = [each for each in told_by(ear, "book") if each[1] != [1]]
        assert told == [("I", None, None), ("U", None, None), ("D", None, None)]


@pytest.mark.usefixtures("chapters")
def test_one_row_first(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """A plan made for one row serves a later statement of many in the same session."""
    writer.execute("SET statement_timeout = '60s'")
    writer.execute("INSERT INTO project_raw SELECT i, i FROM generate_series(1, 30000) i")
    for number in range(8):
        writer.execute("UPDATE project_raw SET name = %s WHERE id < 3", [str(number)])
    ear.texts()
    writer.execute(
        "UPDATE project_raw SET name = 'x', book = CASE WHEN id < 9000 THEN -1 ELSE id END"
    )
    writer.execute("UPDATE project_raw SET name = 'y' WHERE id < 10000")

    assert ear.payloads()[0]["k"] is None


@pytest.mark.usefixtures("chapters")
@pytest.mark.parametrize("count", [1, 2, 900, 2000])
def test_full_payloads(ear: Ear, run: Callable[..., Any], count: int) -> None:
    """Few keys are one payload, and more fill theirs."""
    run("INSERT INTO project_raw SELECT i, i FROM generate_series(1, %s) i", count)
    texts = ear.texts()

    assert len(texts) <= sum(map(len, texts)) // 7500 + 1


TEXTS = "INSERT INTO project_raw SELECT i, {} FROM generate_series(1, %s) i"


@pytest.mark.parametrize(
    ("size", "is_told"),
    [
        (1, True),
        (trigger_body.OVERSIZED - 3, True),
        (trigger_body.OVERSIZED - 2, False),
        (50_000, False),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_oversized_value(
    ear: Ear,
    run: Callable[..., Any],
    raw: Callable[..., None],
    size: int,
    is_told: bool,
    count: int,
) -> None:
    """A value that is too long marks the whole table; the write succeeds."""
    raw("of text", "of")
    run(TEXTS.format(f"rpad(i::text, {size}, '.')"), count)
    run("UPDATE project_raw SET of = 'x'")
    run("UPDATE project_raw SET of = 'y'")

    inserted, updated, small = told_by(ear, "of")
    assert (inserted[1] is not None) is is_told
    assert (updated[1] is not None) is is_told
    assert small == ("U", list(range(1, count + 1)), {"of": ["x", "y"]})


@pytest.mark.parametrize("size", [1, 500, trigger_body.OVERSIZED - 4])
@pytest.mark.parametrize("count", [1, 2, 400])
def test_pieces_of_long_values(
    ear: Ear, run: Callable[..., Any], raw: Callable[..., None], size: int, count: int
) -> None:
    """Pieces fit with values of any length, mixed, of several columns; of one row, too."""
    columns = [f"c{number}" for number in range(4)]
    raw(", ".join(f"{each} text" for each in columns), *columns)
    values = ", ".join(
        f"rpad(i::text || '/{each}', CASE i %% 7 WHEN 1 THEN {max(size, 9)} ELSE 9 END, '.')"
        for each in columns
    )
    run(TEXTS.format(values), count)
    run("UPDATE project_raw SET " + ", ".join(f"{each} = {each} || '+'" for each in columns[:3]))

    inserted, updated = told_by(ear, *columns)
    assert inserted[1] == updated[1] == list(range(1, count + 1))
    for each in columns:
        assert len(inserted[2][each]) == count
        assert len(updated[2][each]) == count * (1 if each == "c3" else 2)


def test_huge_values_in_all(ear: Ear, run: Callable[..., Any], raw: Callable[..., None]) -> None:
    """Values that would fill the queue of all make a marker; many times the same one do not."""
    raw("of text", "of")
    count = trigger_body.MAX_KEYS_BYTES // 1000
    run(TEXTS.format("rpad(i::text, 998, '.')"), count)
    run("UPDATE project_raw SET of = rpad('', 998, '.')")
    run("UPDATE project_raw SET of = rpad('', 997, '.')")

    assert [each[1] is None for each in told_by(ear, "of")] == [True, True, False]
