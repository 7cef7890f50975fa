"""A consumer that overrides how rows are read or shown is called for each change and socket."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from rest_framework.exceptions import PermissionDenied

from pgobserve.decorators import action
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_instance import UPDATE, ItemConsumer
from tests.project.models import Item


class OwnRetrieve(ItemConsumer):
    """Shows something else."""

    @action()
    async def retrieve(self, **kwargs: Any) -> tuple[Any, int]:
        item = await Item.objects.aget(pk=kwargs["pk"])
        return {"shouted": item.name.upper(), "by": kwargs["action"]}, 200


class OwnObject(ItemConsumer):
    """Hides rows named secret."""

    def get_object(self, **kwargs: Any) -> Item:
        found: Item = super().get_object(**kwargs)
        if found.name == "secret":
            raise Http404
        if found.name == "forbidden":
            raise PermissionDenied
        return found


class OwnHandler(ItemConsumer):
    """Replies by itself."""

    async def handle_observed_action(self, action: str, group: Any = None, **kwargs: Any) -> None:
        for request_id in self._requests_for(group):
            await self.reply(action=f"my {action}", data=kwargs, request_id=request_id)


async def test_own_retrieve(connect: Any, item: Item) -> None:
    """What an overridden retrieve returns is what each frame shows, for each request id."""
    socket = await connect(OwnRetrieve)
    for request_id in (1, 2):
        await socket.subscribe(item.pk, request_id)
    await run_sql(UPDATE, "two", item.pk)
    frames = [await socket.receive() for _ in "12"]
    await run_sql("DELETE FROM project_item")
    gone = [await socket.receive() for _ in "12"]

    assert [f["data"] for f in frames] == [{"shouted": "TWO", "by": "update"}] * 2
    assert [f["request_id"] for f in frames] == [1, 2]
    assert [(f["action"], f["data"]) for f in gone] == [("delete", {"pk": item.pk})] * 2


async def test_own_retrieve_with_snapshot(connect: Any, item: Item) -> None:
    """With ``snapshot`` the reply shows what an overridden retrieve returns."""
    socket = await connect(OwnRetrieve)
    answer = await socket.subscribe(item.pk, snapshot=True)

    assert answer["data"] == {"shouted": "ONE", "by": "retrieve"}


async def test_own_get_object(connect: Any, item: Item) -> None:
    """What an overridden get_object hides is hidden on every frame, and told once."""
    socket = await connect(OwnObject)
    await socket.subscribe(item.pk)
    await run_sql(UPDATE, "secret", item.pk)
    left = await socket.receive()
    await run_sql("UPDATE project_item SET rank = 9")
    assert await socket.has_nothing()
    await run_sql(UPDATE, "open", item.pk)
    back = await socket.receive()
    await run_sql(UPDATE, "forbidden", item.pk)
    denied = await socket.receive()
    await run_sql("UPDATE project_item SET rank = 10")
    assert await socket.has_nothing()

    assert (left["action"], left["data"]) == ("delete", {"pk": item.pk})
    assert (back["action"], back["data"]["name"]) == ("create", "open")
    assert (denied["action"], denied["data"]) == ("delete", {"pk": item.pk})


async def test_own_get_object_at_the_subscription(connect: Any, item: Item) -> None:
    """What an overridden get_object hides, in whatever way, is answered as what is not there."""
    socket = await connect(OwnObject)
    answers = [await socket.subscribe(item.pk + 99)]
    for name in ("secret", "forbidden"):
        await run_sql(UPDATE, name, item.pk)
        answers.append(await socket.subscribe(item.pk))

    assert answers[0]["response_status"] == 404
    assert answers[1:] == answers[:1] * 2


async def test_own_handler(connect: Any, item: Item) -> None:
    """An overridden handler gets the action and the key."""
    socket = await connect(OwnHandler)
    await socket.subscribe(item.pk, 4)
    await run_sql(UPDATE, "two", item.pk)
    frame = await socket.receive()

    assert (frame["action"], frame["data"], frame["request_id"]) == (
        "my update",
        {"pk": item.pk},
        4,
    )
