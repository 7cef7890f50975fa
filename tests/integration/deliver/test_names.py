"""Names of DCRF's instance mixin that others bind to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import User

from pgobserve.decorators import action
from tests.project.consumers import UserConsumer

if TYPE_CHECKING:
    from collections.abc import Callable


class Counting(UserConsumer):
    @action()
    async def requests(self, **kwargs: Any) -> tuple[Any, int]:
        return [sorted(ids) for ids in self.subscribed_requests.values()], 200

    @action()
    async def forget(self, request_id: Any, **kwargs: Any) -> tuple[Any, int]:
        self._unsubscribe(request_id)
        return None, 204


async def test_subscribed_requests(connect: Callable[..., Any], observed: None) -> None:
    """``subscribed_requests`` has the request ids, ``_unsubscribe`` ends all of one."""
    user = await User.objects.acreate(username="ann")
    socket = await connect(Counting)
    await socket.subscribe(user.pk, 1)
    await socket.subscribe(user.pk, 2)
    assert (await socket.ask("requests"))["data"] == [[1, 2]]

    await socket.ask("forget", request_id=1)

    assert (await socket.ask("requests"))["data"] == [[2]]
