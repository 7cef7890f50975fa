"""Decorators for a consumer's actions and detached methods."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, cast

from asgiref.sync import iscoroutinefunction
from channels.db import database_sync_to_async
from django.db import DEFAULT_DB_ALIAS, connections, transaction

from pgobserve._former_names import resolver

if TYPE_CHECKING:
    from pgobserve.consumers import AsyncAPIConsumer

AsyncMethod = Callable[..., Coroutine[Any, Any, Any]]


def action(
    atomic: bool | None = None, detached: bool | None = None, **kwargs: Any
) -> Callable[[Callable[..., Any]], AsyncMethod]:
    """
    Make a method an action, which clients can call.

    It receives the keys of the message as keyword arguments, including ``request_id`` and ``action``. A
    returned tuple ``(data, status)`` is the reply; for anything else there is none.

    Args:
        atomic: Runs a synchronous method in a transaction; by default follows ``ATOMIC_REQUESTS`` of
            each database.
        detached: Runs an asynchronous method in a task of its own, so that the socket handles other
            messages meanwhile. It is cancelled when the socket closes.
        **kwargs: ``name`` is the action's name for clients, instead of the method's name.

    Raises:
        ValueError: The method is asynchronous and ``atomic``, or synchronous and ``detached``.

    Example:
        >>> class Polls(AsyncAPIConsumer):
        ...     @action()
        ...     def vote(self, poll, **kwargs):
        ...         return {"votes": Poll.objects.vote(poll)}, 200
    """

    def decorate(method: Callable[..., Any]) -> AsyncMethod:
        exposed: Any
        if iscoroutinefunction(method):
            if atomic:
                raise ValueError(
                    f"{method.__qualname__} is asynchronous: only synchronous actions can be atomic."
                )
            exposed = _detached_action(method) if detached else method
        elif detached:
            raise ValueError(
                f"{method.__qualname__} is synchronous: only asynchronous actions can be detached."
            )
        else:
            exposed = _in_thread(method, atomic)
        exposed.action = True
        exposed.kwargs = kwargs
        return cast("AsyncMethod", exposed)

    return decorate


def detached(method: AsyncMethod) -> AsyncMethod:
    """
    Run an asynchronous method that is no action in a task of its own.

    A call starts the task and returns at once. The task is cancelled when the socket closes.

    Example:
        >>> class Feeds(AsyncAPIConsumer):
        ...     @detached
        ...     async def poll(self, url): ...
    """
    if not iscoroutinefunction(method):
        raise ValueError(
            f"{method.__qualname__} is synchronous: only asynchronous methods can be detached."
        )

    @wraps(method)
    async def start(self: AsyncAPIConsumer, *args: Any, **kwargs: Any) -> None:
        self.start_detached(method.__name__, method(self, *args, **kwargs))

    return start


def _in_thread(method: Callable[..., Any], atomic: bool | None) -> AsyncMethod:
    def run(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for alias in _atomic_aliases(atomic):
                stack.enter_context(transaction.atomic(using=alias))
            if (prepared := getattr(args[0], "_in_database_session", None)) is not None:
                stack.enter_context(prepared(kwargs))
            return method(*args, **kwargs)

    in_thread = database_sync_to_async(run)

    @wraps(method)
    async def call(self: AsyncAPIConsumer, *args: Any, **kwargs: Any) -> Any:
        return await in_thread(self, *args, **kwargs)

    return call


def _atomic_aliases(atomic: bool | None) -> list[str]:
    if atomic is None:
        return [a for a, settings in connections.settings.items() if settings["ATOMIC_REQUESTS"]]
    return [DEFAULT_DB_ALIAS] if atomic else []


def _detached_action(method: AsyncMethod) -> AsyncMethod:
    @wraps(method)
    async def start(self: AsyncAPIConsumer, *args: Any, **kwargs: Any) -> None:
        action, request_id = kwargs.get("action"), kwargs.get("request_id")
        work = partial(method, self, *args, **kwargs)
        self.start_detached(method.__name__, self._answering(work, action, request_id))

    return start


__getattr__ = resolver(__name__)
