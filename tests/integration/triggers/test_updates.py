"""An UPDATE sends the changed rows only; payloads fit, whatever the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.errors import ConfigurationError
from pgobserve.triggers.bodies import trigger_body
from pgobserve.wire import MAX_KEYS, MAX_PAYLOAD_BYTES
from tests.integration.triggers.conftest import by_each_transport
from tests.project.shapes import Place, Plain, Restaurant, TextKey, Wide

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.triggers.conftest import Ear

WIDE = "project.wide"


@pytest.fixture(autouse=True)
def plain(make: Callable[..., None]) -> None:
    """A plain table."""
    make(Plain)


@by_each_transport
def test_key_change(ear: Ear, run: Callable[..., Any], install: Callable[..., Any]) -> None:
    """A changed key sends the old one and the new one."""
    install(Plain)
    run("INSERT INTO project_plain (id, name, rank) VALUES (1, '', 0), (2, '', 0)")
    ear.texts()

    run("UPDATE project_plain SET id = 7 WHERE id = 1")

    assert ear.changes() == [("project.plain", "U", [1, 7])]


@by_each_transport
def test_swapped_keys(ear: Ear, run: Callable[..., Any], install: Callable[..., Any]) -> None:
    """Rows that swap their keys are both sent; so are shifted ones."""
    install(Plain)
    run("INSERT INTO project_plain (id, name, rank) VALUES (1, 'a', 0), (2, 'b', 0), (3, 'c', 0)")
    run("ALTER TABLE project_plain DROP CONSTRAINT project_plain_pkey")
    run("ALTER TABLE project_plain ADD CONSTRAINT project_plain_pkey PRIMARY KEY (id) DEFERRABLE")
    ear.texts()
    try:
        run("UPDATE project_plain SET id = 3 - id WHERE id < 3")
        run("UPDATE project_plain SET id = id + 1")
    finally:
        run("ALTER TABLE project_plain DROP CONSTRAINT project_plain_pkey")
        run("ALTER TABLE project_plain ADD CONSTRAINT project_plain_pkey PRIMARY KEY (id)")

    assert ear.changes() == [("project.plain", "U", [1, 2]), ("project.plain", "U", [1, 2, 3, 4])]


@by_each_transport
def test_columns(
    ear: Ear, make: Callable[..., None], run: Callable[..., Any], install: Callable[..., Any]
) -> None:
    """With ``columns`` only changes of those and of the key are sent; json works too."""
    make(Wide)
    install(Wide, columns=["shown", "facts", "owner"])
    Wide.objects.create(pk=1)
    ear.texts()

    Wide.objects.update(hidden="x")
    assert ear.texts() == []
    for change in ({"shown": "x"}, {"facts": {"a": 1}}, {"owner": 5}, {"id": 2}):
        Wide.objects.update(**change)

    assert ear.changes() == [
        (WIDE, "U", [1]),
        (WIDE, "U", [1]),
        (WIDE, "U", [1]),
        (WIDE, "U", [1, 2]),
    ]


@by_each_transport
def test_no_columns(ear: Ear, make: Callable[..., None], install: Callable[..., Any]) -> None:
    """With an empty ``columns`` only rows that come, go or change their key are sent."""
    make(Wide)
    install(Wide, columns=[])
    Wide.objects.create(pk=1)
    Wide.objects.update(shown="x")
    Wide.objects.update(id=2)
    Wide.objects.all().delete()

    assert ear.changes() == [(WIDE, "I", [1]), (WIDE, "U", [1, 2]), (WIDE, "D", [2])]


def _insert(run: Callable[..., Any], count: int, name: str = "''") -> None:
    run(
        "INSERT INTO project_plain (id, name, rank) "
        f"SELECT i, {name}, 0 FROM generate_series(1, {count}) i"
    )


def test_chunks(ear: Ear, run: Callable[..., Any], install: Callable[..., Any]) -> None:
    """Many keys go out in several full payloads that PostgreSQL takes."""
    install(Plain)
    _insert(run, MAX_KEYS)

    texts = ear.texts()

    assert max(len(text) for text in texts) <= MAX_PAYLOAD_BYTES
    assert len(texts) <= sum(map(len, texts)) // 7000 + 1


@pytest.mark.parametrize("operation", ["I", "U", "D"])
def test_all_keys_are_told(
    ear: Ear, run: Callable[..., Any], install: Callable[..., Any], operation: str
) -> None:
    """Up to the limit each key is sent once; above it, one mark of the whole table."""
    install(Plain)
    for count, told in ((MAX_KEYS, list(range(1, MAX_KEYS + 1))), (MAX_KEYS + 1, None)):
        _insert(run, count)
        run("UPDATE project_plain SET rank = 1")
        run("DELETE FROM project_plain")
        changes = [each for each in ear.payloads() if each["o"] == operation]
        if told is None:
            assert [each["k"] for each in changes] == [None]
        else:
            assert sorted(key for each in changes for key in each["k"]) == told


@by_each_transport
def test_large_statement_that_changes_little(
    ear: Ear, run: Callable[..., Any], install: Callable[..., Any]
) -> None:
    """The limit counts rows that changed, not rows that the statement touched."""
    install(Plain)
    _insert(run, MAX_KEYS + 5)
    ear.texts()

    run("UPDATE project_plain SET rank = CASE WHEN id = 77 THEN 1 ELSE 0 END")

    assert ear.changes() == [("project.plain", "U", [77])]


@pytest.mark.parametrize(
    ("size", "told"),
    [(trigger_body.OVERSIZED - 3, True), (trigger_body.OVERSIZED - 2, False), (50_000, False)],
)
def test_oversized_key(
    ear: Ear,
    make: Callable[..., None],
    run: Callable[..., Any],
    install: Callable[..., Any],
    size: int,
    told: bool,
) -> None:
    """A key too long to be named makes a marker; the write succeeds."""
    make(TextKey)
    run("ALTER TABLE project_textkey DROP CONSTRAINT project_textkey_pkey")
    install(TextKey)

    TextKey.objects.create(pk="x" * size)
    TextKey.objects.create(pk="small")

    first, second = ear.payloads()
    assert first["k"] == (["x" * size] if told else None)
    assert second["k"] == ["small"]
    assert TextKey.objects.count() == 2


@pytest.mark.parametrize("size", [1, 500, trigger_body.OVERSIZED - 3])
def test_chunks_of_long_keys(
    ear: Ear,
    make: Callable[..., None],
    run: Callable[..., Any],
    install: Callable[..., Any],
    size: int,
) -> None:
    """Chunks fit with keys of any length, also when lengths are mixed."""
    make(TextKey)
    run("ALTER TABLE project_textkey DROP CONSTRAINT project_textkey_pkey")
    install(TextKey)

    run(
        "INSERT INTO project_textkey SELECT rpad(i::text || '/', CASE i %% 3 WHEN 0 THEN %s::int "
        "ELSE 6 END, '.'), '' FROM generate_series(1, 400) i",
        size,
    )

    texts = ear.texts()
    assert max(len(text) for text in texts) <= MAX_PAYLOAD_BYTES
    assert sum(text.count("/") for text in texts) in (400, 267)


def test_huge_keys_in_all(
    ear: Ear, make: Callable[..., None], run: Callable[..., Any], install: Callable[..., Any]
) -> None:
    """Keys that would fill the queue of all make a marker, even if each is short enough."""
    make(TextKey)
    install(TextKey)
    count = trigger_body.MAX_KEYS_BYTES // 1000

    run(
        f"INSERT INTO project_textkey SELECT rpad(i::text, 998, '.'), '' FROM generate_series(1, {count}) i"
    )

    assert ear.changes() == [("project.textkey", "I", None)]


@by_each_transport
def test_columns_of_a_child(
    ear: Ear, make: Callable[..., None], install: Callable[..., Any]
) -> None:
    """A parent's field in a child's ``columns`` is watched in the parent's table."""

    make(Place, Restaurant)
    install(Restaurant, columns=["name"])
    Restaurant.objects.create(pk=1)
    ear.texts()

    Restaurant.objects.update(stars=3)
    Restaurant.objects.update(name="x")

    assert ear.changes() == [("project.place", "U", [1])]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["nope"], "has no field nope"),
        (["tags"], "has no column.*observe the through model"),
        ("shown", "must be a list of field names, not a string"),
    ],
)
def test_bad_columns(install: Callable[..., Any], columns: Any, message: str) -> None:
    """A field that is none is refused with its name."""
    with pytest.raises(ConfigurationError, match=message):
        install(Wide, columns=columns)
