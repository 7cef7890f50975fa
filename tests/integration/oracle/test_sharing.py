"""Sockets that see the same share one query and one serialization: to share nothing is no way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.db.backends.utils import CursorWrapper

from tests.integration.deliver.conftest import run_sql, settled
from tests.integration.oracle.kinds import KINDS
from tests.integration.oracle.serializers import NoteSerializer
from tests.integration.oracle.socket import Socket
from tests.integration.oracle.walk import in_thread
from tests.integration.oracle.writes import Writer

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Count the rows that are serialized, and the queries for notes."""
    counted = {"serialized": 0, "read": 0}
    represent, execute = NoteSerializer.to_representation, CursorWrapper.execute

    def to_representation(self: Any, instance: Any) -> Any:
        counted["serialized"] += 1
        return represent(self, instance)

    def counting(self: Any, sql: Any, params: Any = None) -> Any:
        counted["read"] += '"oracle_note"' in str(sql)
        return execute(self, sql, params)

    monkeypatch.setattr(NoteSerializer, "to_representation", to_representation)
    monkeypatch.setattr(CursorWrapper, "execute", counting)
    return counted


@pytest.mark.parametrize(
    ("languages", "times"), [((None, None), 1), (("de", "de"), 1), (("de", "fr"), 2)]
)
async def test_users_share(
    feeds: None,
    cost: dict[str, int],
    languages: tuple[str | None, ...],
    times: int,
    draw: random.Random,
) -> None:
    """Two users of a plain consumer cost one serialization, and two languages cost two."""
    await in_thread(Writer(draw).prepare)
    users = await in_thread(lambda: [*User.objects.order_by("id")])
    sockets = []
    for user, language in zip(users, languages, strict=False):
        socket = Socket(KINDS["plain"], {"user": user, "language": language}, {}, draw)
        sockets.append(socket)
        await socket.open()
        await socket.subscribe()
        await socket.subscribe(1)
    await settled()
    cost.update(serialized=0, read=0)
    await run_sql("UPDATE oracle_note SET title = 'new' WHERE id = 1")
    await settled()
    for socket in sockets:
        await socket.rest()

    told = [it.frames[-1]["data"]["title"] for s in sockets for it in s.replicas.values()]
    assert told == ["new"] * 4
    assert cost["serialized"] == times
    assert cost["read"] <= times
    for socket in sockets:
        await socket.aclose()
