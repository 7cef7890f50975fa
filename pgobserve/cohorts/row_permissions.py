"""
Permissions, checked for every frame: for all sockets of a batch in one go.

Object permissions come first, before a row is rendered: a row that may not be seen is not there, and
nothing of it can be noticed. Those of the action come last, where there is something to send.
Synchronous ones run in the loader's thread that has just read the rows, asynchronous ones together in
one visit to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404
from rest_framework.exceptions import APIException, PermissionDenied

from pgobserve import conf
from pgobserve._consumer.permission_call import needs_thread
from pgobserve._consumer.send_errors import is_being_cancelled
from pgobserve.database.connection_watchdog import attempt, is_lost
from pgobserve.database.session import isolate_all
from pgobserve.hub.send_queue import (
    ABSENT,
    NOTHING,
    UNREAD,
    Refusal,
    View,
)
from pgobserve.logs import fields
from pgobserve.permissions import AllowAny, checks_objects, decide, instances
from pgobserve.render.own_hooks import has_own
from pgobserve.sql.keys import shown
from pgobserve.workers import thread_pool
from pgobserve.workers.held_threads import Held, ThreadHeld
from pgobserve.workers.occupation import contained, occupation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.hub.load_requests import LoadRequest, LoadResult
    from pgobserve.hub.send_queue import Outcome

logger = logging.getLogger(__name__)

#: Share of ``HOOK_TIMEOUT`` that asynchronous permissions have where nobody else waits for them.
LONG_SHARE: Final = 0.8

#: Seconds that one asynchronous answer may take, and that the event loop may take to look at it.
PERMISSION_TIMEOUT: Final = 30.0

#: The answer where a permission failed; the log says why, the client must not know.
UNDECIDED: Final = Refusal(500, UNREAD.errors)

#: A row that is absent because its permissions could not be checked: it is to be read again.
UNJUDGED: Final = View(None, NOTHING)

_OBJECT_FAILED: Final = (
    "check_object_permissions() of %s failed for %s %s of database %r, which is not shown."
)

#: What a check raises to say no.
_REFUSING: Final = (APIException, DjangoPermissionDenied, Http404)


class Guard:
    """
    The permissions of one subscription, and where they run.

    Made in the socket's event loop. Permission objects live for one decision: they may keep what they
    have found.

    Args:
        consumer: The socket's consumer.
        by_itself: The consumer checks when it delivers; there is nothing to check here.

    Attributes:
        open: There is nothing to check: everyone may do everything.
        in_loop: The action's permissions run in the event loop.
        judges: The row decides, too, whether it may be seen.
        loop: The socket's.
    """

    __slots__ = ("_by_itself", "_consumer", "in_loop", "judges", "loop", "open")

    def __init__(self, consumer: GenericAsyncAPIConsumer, *, by_itself: bool = False) -> None:
        self._consumer = consumer
        self._by_itself = by_itself
        self.loop = asyncio.get_running_loop()
        self.examine()

    def examine(self) -> None:
        """Look at what the consumer has for permissions now: on its class, or by itself."""
        consumer = self._consumer
        asked = self._permissions()
        overridden = has_own(consumer, "check_permissions", "get_permissions")
        self.in_loop = overridden or not all(needs_thread(p, "has_permission") for p in asked)
        judges = (
            overridden
            or any(map(checks_objects, asked))
            or has_own(consumer, "check_object_permissions")
        )
        self.judges = judges and not self._by_itself
        self.open = self._by_itself or not (asked or judges)

    def _permissions(self) -> list[Any]:
        made = instances(self._consumer.permission_classes)
        return [permission for permission in made if type(permission) is not AllowAny]

    def ask(self, action: str, kwargs: Mapping[str, Any]) -> Refusal | None:
        """Ask the synchronous permissions, in this thread; return the refusal, if it is one."""
        consumer = self._consumer
        for permission in self._permissions():
            given = decide(permission, consumer.scope, consumer, action, kwargs)
            # A composition may be of both kinds, and a plain function may return a coroutine.
            if not (self._wait_for(given) if isawaitable(given) else given):
                return _attempt(partial(consumer._refused, permission), type(consumer))
        return None

    def _wait_for(self, given: Awaitable[bool]) -> bool:
        async def answer() -> bool:
            return await given

        return asyncio.run_coroutine_threadsafe(answer(), self.loop).result(PERMISSION_TIMEOUT)

    async def ask_in_loop(self, action: str, kwargs: Mapping[str, Any]) -> Refusal | None:
        """Ask in the event loop; return the refusal, if it is one."""
        try:
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
        Tell whether this row may be seen, in this thread.

        Whatever the check raises, the row may not be; what is not a refusal is logged.

        Raises:
            OperationalError: The database could not be asked; nor could it be by another check.
            InterfaceError: The same.
        """
        if not self.judges:
            return True
        try:
            self._consumer.check_object_permissions(instance, action=action, **kwargs)
        except (OperationalError, InterfaceError):
            raise
        except BaseException as error:  # noqa: BLE001 (it is logged)
            contained(error)
            if not isinstance(error, _REFUSING):
                _log_object_failed(type(self._consumer), instance, error)
            return False
        return True


def _log_object_failed(owner: type, instance: Model, error: BaseException) -> None:
    about = fields(consumer=owner, model=type(instance), key=instance.pk, alias=instance._state.db)
    names = (about["consumer"], about["model"], about["key"], about["alias"])
    logger.error(_OBJECT_FAILED, *names, exc_info=error, extra=about)


def refusal(error: BaseException, owner: type) -> Refusal:
    """Return the answer that an exception makes; an unexpected one is logged and tells nothing."""
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


def _attempt(function: Callable[[], object], owner: type) -> Refusal | None:
    try:
        function()
    except BaseException as error:  # noqa: BLE001 (it becomes the answer)
        return refusal(contained(error), owner)
    return None


def hidden(
    job: LoadRequest, watch: Any, instance: Model, connection: BaseDatabaseWrapper
) -> Outcome | None:
    """
    Return what a subscription has in place of a row that its permissions hide; None if it is seen.

    Args:
        job: The row that is read.
        watch: The subscription; :attr:`Guard.judges` is true for it.
        instance: The row as the subscription's queryset has it.
        connection: By which it was read, in the database session that belongs to it.
    """
    context, guard = watch.context, watch.context.guard
    begins = watch.begun is not None
    action = context.asked if begins else _action(job.shown(watch))
    owner = type(context.visibility.consumer)
    occupation().enter(owner, "check_object_permissions", (watch,))
    try:
        seen = attempt(lambda: guard.sees(instance, action, {"pk": shown(job.key)}), connection)
    except (OperationalError, InterfaceError) as error:
        if is_lost(connection):
            raise
        _log_object_failed(owner, instance, error)
        # A client that has just asked must not see the difference to a row that is not there.
        return UNJUDGED if begins else UNREAD
    return None if seen else ABSENT


def is_unjudged(unseen: Mapping[Any, Outcome]) -> bool:
    """Tell whether some of what :func:`hidden` returned is to be found out again."""
    return any(outcome is UNJUDGED or outcome is UNREAD for outcome in unseen.values())


@dataclass(slots=True)
class _RowCase:
    """A frame that would be sent, and needs the permission of its action."""

    found: LoadResult
    watch: Any
    action: str

    @property
    def guard(self) -> Guard:
        guard: Guard = self.watch.context.guard
        return guard

    @property
    def owner(self) -> type:
        return type(self.watch.context.visibility.consumer)

    @property
    def kwargs(self) -> dict[str, Any]:
        key = self.found.job.key
        return {} if key is None else {"pk": shown(key)}  # a list's number has none

    def settle(self, outcome: Outcome) -> None:
        special: Any = self.found.special
        special[self.watch] = outcome


def check(found: Sequence[LoadResult]) -> None:
    """
    Replace what the permissions of a frame's action refuse.

    Args:
        found: The results of a load, in which hidden rows are absent; changed in place.
    """
    cases = [case for item in found for case in _cases(item)]
    _ask_in_loop([case for case in cases if case.guard.in_loop])
    for case in cases:
        if not case.guard.in_loop:
            refused = _attempt_ask(case)
            isolate_all()
            if refused is not None:
                case.settle(refused)


def _cases(item: LoadResult) -> Iterator[_RowCase]:
    for watch in item.job.watches:
        # A request was checked before its action was called.
        if watch.context.guard.open or watch in item.moved or watch.begun is not None:
            continue
        outcome = item.special.get(watch, item.outcome)
        had = item.job.shown(watch)
        if isinstance(outcome, View):
            if outcome.digest != had:
                gone = outcome.body is None
                yield _RowCase(item, watch, "delete" if gone else _action(had))
        elif outcome.named:
            yield _RowCase(item, watch, _action(had))


def _action(had: bytes | None) -> str:
    return "create" if had == NOTHING else "update"


def _attempt_ask(case: _RowCase) -> Refusal | None:
    occupation().enter(case.owner, "check_permissions", (case.watch,))
    origin = case.watch.context.visibility.origin
    try:
        return origin.run(case.guard.ask, case.action, case.kwargs)  # type: ignore[no-any-return]
    except BaseException as error:  # noqa: BLE001 (it becomes the answer)
        return refusal(contained(error), case.owner)


def _ask_in_loop(cases: Sequence[_RowCase]) -> None:
    if not cases:
        return

    at = occupation()
    at.leave()  # the thread only waits
    # Others wait for this thread, unless it serves suspects.
    patience = LONG_SHARE * conf.get().HOOK_TIMEOUT if at.alone else thread_pool.HOLD_TIMEOUT

    async def ask_all() -> list[Refusal | asyncio.Task[Any] | None]:
        loop = asyncio.get_running_loop()
        tasks = [
            loop.create_task(
                case.guard.ask_in_loop(case.action, case.kwargs),
                context=case.watch.context.visibility.origin.here(),
            )
            for case in cases
        ]
        try:
            await asyncio.wait(tasks, timeout=patience)
        finally:
            for task in tasks:
                task.cancel()
        return [task.result() if task.done() else task for task in tasks]

    future = asyncio.run_coroutine_threadsafe(ask_all(), cases[0].guard.loop)
    answers = future.result(patience + PERMISSION_TIMEOUT)
    late = [case for case, answer in zip(cases, answers, strict=True) if _is_late(answer)]
    if late:
        raise _held(late)
    for case, answer in zip(cases, answers, strict=True):
        if isinstance(answer, Refusal):
            case.settle(answer)


def _is_late(answer: object) -> bool:
    return isinstance(answer, asyncio.Task)


def _held(late: Sequence[_RowCase]) -> ThreadHeld:
    """Return the error that has others go on without those whose permissions do not answer."""
    held, owner = Held(), late[0].owner
    if occupation().alone:
        logger.error(
            "%s.check_permissions did not return; the client receives no row.",
            owner.__qualname__,
            extra=fields(consumer=owner),
        )
        held.give_up()
    held.end()  # what was asked is cancelled, and holds no thread
    watches = tuple(case.watch for case in late if case.owner is owner)
    return ThreadHeld(owner, "check_permissions", watches, held)
