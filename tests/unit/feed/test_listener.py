"""What the listener makes of numbers and texts; its connection is tested with a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgobserve.feed.listener import QUEUE_WARNING, Listener

if TYPE_CHECKING:
    import pytest


def listener(changes: list[Any]) -> Listener:
    """Return a listener that does not run."""
    return Listener(dict, "pgobserve", changes.append, lambda gap: None)


async def test_queue_filling_up(caplog: pytest.LogCaptureFixture) -> None:
    """That the notification queue fills is logged when it begins, and again if it comes back."""
    each = listener([])
    for usage in (0.0, QUEUE_WARNING, 0.5, 0.02, 0.0, 0.3):
        each._note_usage(usage)

    messages = [record.getMessage() for record in caplog.records]
    assert [text.split(":")[0] for text in messages] == [
        "PostgreSQL's notification queue is 1.0 % full",
        "PostgreSQL's notification queue is 30.0 % full",
    ]
    assert each.state.queue_usage == 0.3


async def test_ignored_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The first notification that can't be used is logged, all are counted."""
    changes: list[Any] = []
    each = listener(changes)
    for payload in ("x", "y", '{"v":1,"t":"a.b","o":"I","x":"1","k":[1]}'):
        each._hear(payload)

    assert len(changes) == 1
    assert (each.state.notifications, each.state.ignored) == (3, 2)
    (record,) = caplog.records
    assert "on channel pgobserve was ignored: not JSON: 'x'" in record.getMessage()
