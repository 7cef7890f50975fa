"""What the servers of these tests serve."""

from __future__ import annotations

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

http = get_asgi_application()

from django.urls import path  # noqa: E402

from tests.acceptance.faults import consumers, hooks  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": URLRouter(
            [
                path("items/", consumers.ItemConsumer.as_asgi()),
                path("fragile/", consumers.FragileConsumer.as_asgi()),
                path("picky/", consumers.PickyConsumer.as_asgi()),
                path("lists/items/", consumers.ItemListConsumer.as_asgi()),
                path("lists/fragile/", consumers.FragileListConsumer.as_asgi()),
                path("long/", consumers.LongConsumer.as_asgi()),
                path("bad/serializer/", hooks.BadSerializerConsumer.as_asgi()),
                path("bad/queryset/", hooks.BadQuerysetConsumer.as_asgi()),
                path("bad/permission/", hooks.BadPermissionConsumer.as_asgi()),
                path("bad/async/", hooks.BadAsyncPermissionConsumer.as_asgi()),
                path("bad/reply/", hooks.BadReplyConsumer.as_asgi()),
                path("state/", consumers.StateConsumer.as_asgi()),
            ]
        ),
    }
)
