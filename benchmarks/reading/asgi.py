"""The application under test."""

from __future__ import annotations

import gc
import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.reading.settings")
http = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from benchmarks.reading import consumers, counting  # noqa: E402

if "BENCHMARK_COUNT" in os.environ:
    counting.count_queries()

if "BENCHMARK_GC" in os.environ:
    # As a deployment may do that keeps very many objects: look through all of them less often.
    gc.set_threshold(50_000, 20, 100)

routes = [
    path("feed/", consumers.ItemConsumer.as_asgi()),
    path("own/", consumers.OwnItemConsumer.as_asgi()),
    path("books/", consumers.BookConsumer.as_asgi()),
    path("books/all/", consumers.AllBooksConsumer.as_asgi()),
    path("books/nested/", consumers.NestedBooksConsumer.as_asgi()),
    path("books/own/", consumers.OwnBooksConsumer.as_asgi()),
    path("plain/", consumers.PlainConsumer.as_asgi()),
    path("write/", consumers.WritingConsumer.as_asgi()),
]
application = ProtocolTypeRouter({"http": http, "websocket": URLRouter(routes)})
