"""Tables whose triggers send values beside keys, and their payloads."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.triggers import installer, registry
from pgobserve.wire import MAX_PAYLOAD_BYTES
from tests.project.shapes import Raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgobserve.triggers.registry import Registration
    from tests.integration.triggers.conftest import Ear

    Told = list[tuple[str, Any, Any]]


def route(model: Any, *columns: str, **options: Any) -> Registration:
    """Install triggers that send columns; the table may have others than the model."""
    given = {model._meta.label: options} if options else {}
    registration = replace(registry.build([model], given)[0], routes=tuple(sorted(columns)))
    installer.install(registration, using="default")
    return registration


def told_by(ear: Ear, *columns: str) -> Told:
    """
    Return (operation, keys, values by column) of each statement until now.

    Whatever was told fits, and every payload that names anything names all columns.
    """
    told: Told = []
    for (_, operation), group in itertools.groupby(
        ear.texts(), lambda text: (json.loads(text)["x"], json.loads(text)["o"])
    ):
        texts = list(group)
        assert max(len(text.encode()) for text in texts) <= MAX_PAYLOAD_BYTES
        payloads = [json.loads(text) for text in texts]
        if payloads[0]["k"] is None:
            assert len(payloads) == 1
            assert "r" not in payloads[0]
            told.append((operation, None, None))
            continue
        assert all(list(each["r"]) == sorted(columns) for each in payloads)
        keys = _joined(each["k"] for each in payloads)
        told.append(
            (operation, keys, {c: _joined(each["r"][c] for each in payloads) for c in columns})
        )
    return told


def _joined(parts: Any) -> list[Any]:
    """Return all parts as one, sorted: nothing is sent twice."""
    joined = sorted(itertools.chain.from_iterable(parts), key=repr)
    assert len({repr(each) for each in joined}) == len(joined)
    return sorted(joined, key=lambda each: (str(type(each)), each))


@pytest.fixture
def raw(clean: None, run: Callable[..., Any]) -> Iterator[Callable[..., None]]:
    """Make a table with other columns than its key, and triggers that send them."""

    def make(columns: str, *routes: str, **options: Any) -> None:
        run(f"CREATE TABLE project_raw (id bigint PRIMARY KEY, {columns})")
        route(Raw, *routes, **options)

    yield make
    run("DROP TABLE IF EXISTS project_raw")


@pytest.fixture
def chapters(raw: Callable[..., None]) -> None:
    """Rows that belong to a book."""
    raw("book bigint, name text NOT NULL DEFAULT ''", "book")
