"""What a middleware of the project sets for each socket."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections
from django.utils import timezone, translation

#: The tenant of the socket.
tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def by_scope(application: Any) -> Any:
    """
    Activate what the scope says: ``language``, ``zone`` and ``tenant``.

    The socket's own actions run in a thread of its own with a database connection of its own: what
    a hook leaves behind there can't change what another socket's ``list`` says.
    """

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        if scope.get("language"):
            translation.activate(scope["language"])
        if scope.get("zone"):
            timezone.activate(scope["zone"])
        if scope.get("tenant"):
            tenant.set(scope["tenant"])
        async with ThreadSensitiveContext():
            try:
                await application(scope, receive, send)
            finally:
                await sync_to_async(connections.close_all)()

    return outer
