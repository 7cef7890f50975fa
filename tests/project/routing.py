"""The tutorial's routes, word for word."""

from __future__ import annotations

from django.urls import re_path

from tests.project import consumers

websocket_urlpatterns = [
    re_path(r"^ws/$", consumers.UserConsumer.as_asgi()),
]
