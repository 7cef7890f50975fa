"""Events that wait for the database."""

from __future__ import annotations

import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pgobserve.errors import FeedUnavailable
from pgobserve.event_handlers import dispatch
from pgobserve.outbox.event import Event

if TYPE_CHECKING:
    import pytest

LABELS = frozenset({"project.item"})
EVENT = Event("project.item", "create", 1, None, None, 77, datetime.datetime.now(datetime.UTC))


class Feed:
    """A feed whose database is away for a while."""

    options = SimpleNamespace(alias="default")

    def __init__(self, failures: int) -> None:
        self._failures = failures

    async def call(self, function: Any) -> list[Any]:
        self._failures -= 1
        if self._failures >= 0:
            raise FeedUnavailable("The database can't be reached: down")
        return []


async def test_events_wait(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That events wait is logged once, and so is that they go on, at the same level."""
    monkeypatch.setattr(dispatch, "backoff", lambda: iter([0.0] * 9))
    feed: Any = Feed(3)
    assert await dispatch.Dispatcher(feed)._prepared(LABELS, [EVENT]) == []

    lost, again = caplog.records
    assert lost.levelname == again.levelname == "WARNING"
    assert lost.getMessage() == (
        "1 events of project.item, from transaction 77 on, wait for database 'default': "
        "The database can't be reached: down"
    )
    assert "from transaction 77 on, are delivered: database 'default' answers" in again.getMessage()
    assert lost.transaction == again.transaction == 77  # type: ignore[attr-defined]


async def test_nothing_is_logged_where_nothing_waits(caplog: pytest.LogCaptureFixture) -> None:
    """A database that is there is not worth a line."""
    feed: Any = Feed(0)
    assert await dispatch.Dispatcher(feed)._prepared(LABELS, [EVENT]) == []

    assert not caplog.records
