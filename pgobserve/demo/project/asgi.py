"""The ASGI application: page, static files and WebSocket."""

from __future__ import annotations

import os
from typing import Any, cast

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pgobserve.demo.project.settings")
pages = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import OriginValidator  # noqa: E402
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler  # noqa: E402
from django.urls import path  # noqa: E402

from pgobserve.demo.project import config  # noqa: E402
from pgobserve.demo.project.consumers import ShipConsumer  # noqa: E402

# Django's stubs do not allow ASGI applications in path().
routes: list[Any] = [path("ws/ships/", cast("Any", ShipConsumer.as_asgi()))]
sockets = URLRouter(routes)
application = ProtocolTypeRouter(
    {
        "http": ASGIStaticFilesHandler(pages),
        # Browsers send the website that opens a socket; only this one may.
        "websocket": OriginValidator(sockets, config.current.origins),
    }
)
