"""Facts of the server: forgotten transactions, and room for connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.cli.doctor import server_health

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.doctor.conftest import Look

    Run = Callable[..., list[Any]]


@pytest.mark.parametrize("name", ["version", "update", "standby", "prepared", "connections"])
def test_well(look: Look, name: str) -> None:
    """The server that the tests run on has nothing amiss."""
    assert look(name).level == "ok"


def test_prepared(look: Look, writer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that was prepared long ago is a warning; that it is possible is a hint."""
    assert "has notified can't be prepared" in look("prepared").advice
    writer.execute("BEGIN")
    writer.execute("INSERT INTO project_item (name, rank) VALUES ('', 0)")
    writer.execute("PREPARE TRANSACTION 'forgotten'")
    try:
        assert look("prepared").level == "ok"
        monkeypatch.setattr(server_health, "FORGOTTEN", 0.0)
        found = look("prepared")
    finally:
        writer.execute("ROLLBACK PREPARED 'forgotten'")

    assert found.level == "warning"
    assert found.details[0].startswith("'forgotten', for ")


def test_room(look: Look, run: Run) -> None:
    """Where connections run out, of the role in this case, it is a warning."""
    ((role,),) = run("SELECT current_user")
    run(f'ALTER ROLE "{role}" CONNECTION LIMIT 2')
    try:
        found = look("connections")
    finally:
        run(f'ALTER ROLE "{role}" CONNECTION LIMIT -1')

    assert found.level == "warning"
    assert "needs up to 3 connections" in found.state
