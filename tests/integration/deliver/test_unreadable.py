"""A row that can't be read costs that row, whatever is wrong with it, and however it is read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from django.db import models
from django.db.models import ExpressionWrapper, F, Value
from django.db.models.expressions import RawSQL

from pgobserve.observer.generics import ObserverModelInstanceMixin
from pgobserve.runtime import runtime
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_list import ItemListConsumer, subscribe
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable

BAD = 99


class Raising(models.IntegerField):
    """Can't read one value."""

    def from_db_value(self, value: int, *_: Any) -> int:
        if value == BAD:
            raise ValueError("This value can't be read.")
        return value


#: By who can't read a row with the bad rank.
EXPRESSIONS = {
    "server": ExpressionWrapper(Value(1) / (F("rank") - BAD), models.IntegerField()),
    "psycopg": RawSQL(
        "CASE WHEN project_item.rank = 99 THEN 'infinity' ELSE now() END::timestamptz", ()
    ),
    "converter": ExpressionWrapper(F("rank") + 0, Raising()),
}


def consumer(expression: Any) -> type[ItemListConsumer]:
    """Return a consumer of rows and lists that reads an expression with each row."""
    queryset = Item.objects.order_by("-id").annotate(extra=expression)
    bases = (ObserverModelInstanceMixin, ItemListConsumer)
    return type("FragileConsumer", bases, {"queryset": queryset})  # type: ignore[return-value]


def brief(frame: Any) -> tuple[Any, Any, Any]:
    """Return the row, the status, and the name."""
    data = frame["data"] or {}
    return data.get("id", data.get("pk")), frame["response_status"], data.get("name")


@pytest.mark.parametrize("transport", ["notify"], indirect=True)
@pytest.mark.parametrize("by", EXPRESSIONS)
async def test_unreadable_row(
    connect: Callable[..., Any], items: list[Item], caplog: pytest.LogCaptureFixture, by: str
) -> None:
    """The others are sent: after a change, to a new subscriber, and after everything is read again."""
    one, bad, three = (item.pk for item in items)
    fragile = consumer(EXPRESSIONS[by])
    listing, watching_one, watching_bad = [await connect(fragile) for _ in range(3)]
    await subscribe(listing)
    await watching_one.subscribe(one)
    await watching_bad.subscribe(bad)

    with caplog.at_level(logging.ERROR):
        await run_sql(
            "UPDATE project_item SET name = 'n', rank = CASE id WHEN %s THEN 99 ELSE rank END", bad
        )
        frames = [brief(await listing.receive()) for _ in items]
        assert sorted(frames, key=str) == [(one, 200, "n"), (bad, 500, None), (three, 200, "n")]
        assert brief(await watching_one.receive()) == (one, 200, "n")
        assert brief(await watching_bad.receive()) == (None, 500, None)
    (record,) = caplog.records
    assert (record.consumer, record.model, record.key) == (
        "FragileConsumer",
        "project.Item",
        str(bad),
    )

    late = await connect(fragile)
    frame = await subscribe(late)
    assert [row["id"] for row in frame["data"]["results"]] == [three, one]
    assert brief(await late.receive()) == (bad, 500, None)

    await run_sql("UPDATE project_item SET name = 'missed', rank = 0 WHERE id = %s", three)
    assert brief(await listing.receive()) == brief(await late.receive()) == (three, 200, "missed")
    (feed,) = runtime.current().feeds.values()
    feed._reread()
    await run_sql("UPDATE project_item SET name = 'repaired', rank = 1 WHERE id = %s", bad)
    for each in (listing, late):
        assert brief(await each.receive()) == (bad, 200, "repaired")
    while brief(frame := await watching_bad.receive()) == (None, 500, None):
        pass  # after everything was read again
    assert brief(frame) == (bad, 200, "repaired")


@pytest.mark.parametrize("transport", ["notify"], indirect=True)
async def test_missing_column(connect: Callable[..., Any], items: list[Item]) -> None:
    """A list that can't be read at all says so to its subscribers, once, and recovers."""
    listing = await connect(consumer(EXPRESSIONS["server"]))
    await subscribe(listing)
    await run_sql("ALTER TABLE project_item RENAME COLUMN rank TO gone")
    try:
        (feed,) = runtime.current().feeds.values()
        feed._reread()
        frame = await listing.receive()
        assert (frame["response_status"], frame["data"]) == (500, {"pk": None})
    finally:
        await run_sql("ALTER TABLE project_item RENAME COLUMN gone TO rank")
    await run_sql("UPDATE project_item SET name = 'back' WHERE id = %s", items[0].pk)
    assert brief(await listing.receive()) == (items[0].pk, 200, "back")
