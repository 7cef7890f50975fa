"""Frames that a server would refuse to send, or a client to take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.client import connected
from tests.acceptance.faults.world import ROWS, World, serving

if TYPE_CHECKING:
    from pathlib import Path

#: What Daphne sends at most, and what a client of the websockets library takes.
MEBIBYTE = 1024 * 1024


def status(frame: Any) -> tuple[str, int]:
    return frame["action"], frame["response_status"]


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("daphne", 1_000_000), ("uvicorn", 1_000_000), ("daphne", 16 * MEBIBYTE)],
    ids=["daphne", "uvicorn", "daphne, more than it sends"],
)
async def test_large_rows(
    world: World, tmp_path: Path, kind: str, limit: int, monkeypatch: Any
) -> None:
    """A list of 2 MB comes in several frames; a row of 1.2 MB is an error until it is shorter."""
    monkeypatch.setenv("PGOBSERVE_FAULTS", json.dumps({"MAX_FRAME_BYTES": limit}))
    total = 2_000_000 if limit < MEBIBYTE else ROWS
    await world.execute(f"UPDATE project_item SET rank = {total // ROWS}")
    with serving(kind, world.environ(), tmp_path) as server:
        async with connected(server.url("long/")) as client:
            frames = [await client.ask("subscribe_list", request_id=1)]
            while frames[-1].get("more"):
                frames.append(await client.receive())
            assert {status(frame) for frame in frames} == {("subscribe_list", 201)}
            assert sum(len(frame["data"]["results"]) for frame in frames) == ROWS
            assert max(map(len, client.frames)) < MEBIBYTE

            await world.execute("UPDATE project_item SET rank = 1200000 WHERE id = 5")
            error = await client.receive()
            assert (status(error), error["data"]) == (("update", 413), {"pk": 5})

            answer = await client.ask("retrieve", pk=5)
            assert (answer["response_status"], answer["data"]) == (413, None)

            await world.execute("UPDATE project_item SET rank = 3 WHERE id = 5")
            row = await client.receive()
            assert (status(row), row["data"]["text"]) == (("update", 200), "xxx")
