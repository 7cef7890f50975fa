"""A consumer behind ``channelsmultiplexer``, as DCRF's JavaScript client wants it."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.project.settings")
http = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.urls import path  # noqa: E402

from pgobserve import mixins  # noqa: E402
from pgobserve.generics import GenericAsyncAPIConsumer  # noqa: E402
from pgobserve.observer.generics import ObserverModelInstanceMixin  # noqa: E402
from tests.project.serializers import UserSerializer  # noqa: E402


class Users(
    ObserverModelInstanceMixin,
    mixins.ListModelMixin,
    mixins.CreateModelMixin,
    mixins.UpdateModelMixin,
    mixins.PatchModelMixin,
    mixins.DeleteModelMixin,
    GenericAsyncAPIConsumer,
):
    queryset = User.objects.order_by("id")
    serializer_class = UserSerializer


multiplexed = AsyncJsonWebsocketDemultiplexer.as_asgi(users=Users.as_asgi())
application = ProtocolTypeRouter({"http": http, "websocket": URLRouter([path("ws/", multiplexed)])})
