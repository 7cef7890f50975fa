"""The permissions of one subscription, and the refusals that they make."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404
from rest_framework.exceptions import APIException, PermissionDenied

from pgobserve._consumer.client_presence import is_being_cancelled
from pgobserve._consumer.permission_call import PermissionCase, check, needs_thread, reading
from pgobserve.hub.outcome import UNREAD, Refusal
from pgobserve.logs import fields
from pgobserve.permissions import AllowAny, checks_objects, instances
from pgobserve.render.own_hooks import has_own
from pgobserve.workers.occupation import contained

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from django.db.models import Model

    from pgobserve.generics import GenericAsyncAPIConsumer

logger = logging.getLogger(__name__)

#: Seconds that an asynchronous permission may take, and the event loop to start it.
PERMISSION_TIMEOUT: Final = 30.0

#: The answer where a permission failed. The reason is for the log alone.
UNDECIDED: Final = Refusal(500, UNREAD.errors)

_OBJECT_FAILED: Final = (
    "check_object_permissions() of %s failed for %s %s of database %r, which is not shown."
)

#: What a check raises to refuse.
_REFUSING: Final = (APIException, DjangoPermissionDenied, Http404)


class Guard:
    """
    The permissions of one subscription, and where they run.

    Made in the socket's event loop. Permission objects may keep state, so each decision has new ones.

    Args:
        custom_delivery: Whether the consumer checks when it delivers, so that there is nothing to check
            here.

    Attributes:
        allows_all: Whether there is nothing to check.
        in_loop: Whether the action's permissions run in the event loop.
        checks_objects: Whether there are object permissions.
        loop: The socket's event loop.
    """

    __slots__ = ("_consumer", "_custom_delivery", "allows_all", "checks_objects", "in_loop", "loop")

    def __init__(self, consumer: GenericAsyncAPIConsumer, *, custom_delivery: bool = False) -> None:
        self._consumer = consumer
        self._custom_delivery = custom_delivery
        self.loop = asyncio.get_running_loop()
        self.examine()

    def examine(self) -> None:
        """Read the permissions that the consumer has now, on its class or itself."""
        consumer = self._consumer
        permissions = self._permissions()
        overridden = has_own(consumer, "check_permissions", "get_permissions")
        self.in_loop = overridden or not all(needs_thread(p, "has_permission") for p in permissions)
        objects = (
            overridden
            or any(map(checks_objects, permissions))
            or has_own(consumer, "check_object_permissions")
        )
        self.checks_objects = objects and not self._custom_delivery
        self.allows_all = self._custom_delivery or not (permissions or objects)

    def _permissions(self) -> list[Any]:
        made = instances(self._consumer.permission_classes)
        return [permission for permission in made if type(permission) is not AllowAny]

    def check(self, action: str, kwargs: Mapping[str, Any]) -> Refusal | None:
        """Check the synchronous permissions in this thread; return the refusal, if any."""
        consumer = self._consumer
        case = PermissionCase(consumer.scope, consumer, action, kwargs)
        for permission in self._permissions():
            with reading():
                given = check(permission, "has_permission", case)
                # A composition may mix both kinds, and a plain function may return a coroutine.
                allowed = self._wait_for(given) if isawaitable(given) else given
            if not allowed:
                return attempt_check(partial(consumer._refused, permission), type(consumer))
        return None

    def _wait_for(self, given: Awaitable[bool]) -> bool:
        async def answer() -> bool:
            return await given

        return asyncio.run_coroutine_threadsafe(answer(), self.loop).result(PERMISSION_TIMEOUT)

    async def check_in_loop(self, action: str, kwargs: Mapping[str, Any]) -> Refusal | None:
        """Check the permissions in the event loop; return the refusal, if any."""
        try:
            with reading():
                await self._consumer.check_permissions(action, **kwargs)
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                raise
            return refusal(contained(error), type(self._consumer))
        except BaseException as error:  # noqa: BLE001 (it becomes the answer)
            return refusal(contained(error), type(self._consumer))
        return None

    def sees(self, instance: Model, action: str, kwargs: Mapping[str, Any]) -> bool:
        """
        Return whether the subscriber may see a row; runs in this thread.

        Any exception hides the row. An unexpected one is logged.

        Raises:
            OperationalError: The database can't be reached.
            InterfaceError: The same.
        """
        if not self.checks_objects:
            return True
        try:
            with reading():
                self._consumer.check_object_permissions(instance, action=action, **kwargs)
        except (OperationalError, InterfaceError):
            raise
        except BaseException as error:  # noqa: BLE001 (it is logged)
            contained(error)
            if not isinstance(error, _REFUSING):
                log_object_failed(type(self._consumer), instance, error)
            return False
        return True


def log_object_failed(owner: type, instance: Model, error: BaseException) -> None:
    about = fields(consumer=owner, model=type(instance), key=instance.pk, alias=instance._state.db)
    names = (about["consumer"], about["model"], about["key"], about["alias"])
    logger.error(_OBJECT_FAILED, *names, exc_info=error, extra=about)


def refusal(error: BaseException, owner: type) -> Refusal:
    """Return the refusal that an exception makes; an unexpected one is logged, not shown."""
    if isinstance(error, Http404):
        return Refusal(404, ("Not found",))
    if isinstance(error, DjangoPermissionDenied):
        error = PermissionDenied()
    if isinstance(error, APIException):
        detail: Any = error.detail
        return Refusal(error.status_code, tuple(detail if isinstance(detail, list) else [detail]))
    logger.error(
        "A permission of %s failed; the client receives no row.",
        owner.__qualname__,
        exc_info=error,
        extra=fields(consumer=owner),
    )
    return UNDECIDED


def attempt_check(function: Callable[[], object], owner: type) -> Refusal | None:
    try:
        function()
    except BaseException as error:  # noqa: BLE001 (it becomes the answer)
        return refusal(contained(error), owner)
    return None
