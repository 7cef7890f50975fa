"""
Permissions, asked on every frame: for all sockets of a batch in one go.

Synchronous permissions are answered in the loader's thread that has just read the rows,
asynchronous ones together in one visit to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.db import InterfaceError, OperationalError, connections
from rest_framework.exceptions import APIException, PermissionDenied

from pgobserve import conf
from pgobserve._asking import needs_thread
from pgobserve._socket import is_being_cancelled
from pgobserve.feed import threads
from pgobserve.feed.held import Held, ThreadHeld
from pgobserve.feed.jobs import FAILED
from pgobserve.feed.keys import shown
from pgobserve.feed.mailbox import ABSENT, NOTHING, Refusal, View
from pgobserve.feed.occupation import contained, occupation
from pgobserve.feed.session import isolate_all
from pgobserve.observer.hooks import has_own
from pgobserve.permissions import AllowAny, decide, instances, judges_objects

if TYPE_CHECKING:
    from collections.abc import Awaitable, Hashable, Mapping, Sequence

    from django.db.models import Model

    from pgobserve.feed.jobs import Found
    from pgobserve.feed.mailbox import Outcome, Watch
    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.observer.source import Source

logger = logging.getLogger(__name__)

#: Share of ``HOOK_TIMEOUT`` that asynchronous permissions have where nobody else waits for them.
LONG_SHARE: Final = 0.8

#: Seconds that one asynchronous answer may take, and that the event loop may take to look at it.
PATIENCE: Final = 30.0


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
            or any(map(judges_objects, asked))
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
                return _attempt(partial(consumer._refused, permission))
        return None

    def _wait_for(self, given: Awaitable[bool]) -> bool:
        async def answer() -> bool:
            return await given

        return asyncio.run_coroutine_threadsafe(answer(), self.loop).result(PATIENCE)

    async def ask_in_loop(self, action: str, kwargs: Mapping[str, Any]) -> Refusal | None:
        """Ask in the event loop; return the refusal, if it is one."""
        try:
            await self._consumer.check_permissions(action, **kwargs)
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                raise
            return refusal(contained(error))
        except BaseException as error:  # noqa: BLE001 (it becomes the answer)
            return refusal(contained(error))
        return None

    def ask_object(self, instance: Model, action: str, kwargs: Mapping[str, Any]) -> Refusal | None:
        """Ask whether this row may be seen, in this thread."""
        if not self.judges:
            return None
        return _attempt(
            lambda: self._consumer.check_object_permissions(instance, action=action, **kwargs)
        )


def refusal(error: Exception) -> Refusal:
    """Return the answer that an exception makes; an unexpected one is logged and tells nothing."""
    if isinstance(error, DjangoPermissionDenied):
        error = PermissionDenied()
    if isinstance(error, APIException):
        detail: Any = error.detail
        return Refusal(error.status_code, tuple(detail if isinstance(detail, list) else [detail]))
    logger.error("A permission failed.", exc_info=error)
    return FAILED


def _attempt(function: Any) -> Refusal | None:
    try:
        function()
    except BaseException as error:  # noqa: BLE001 (it becomes the answer)
        return refusal(contained(error))
    return None


@dataclass(slots=True)
class _Case:
    """
    A row that somebody has, or would be told of.

    Attributes:
        news: There is a frame that would be sent.
    """

    found: Found
    watch: Watch
    action: str
    instance: Model | None
    news: bool

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


def check(found: Sequence[Found], rows: Mapping[tuple[Any, Hashable], Model | None]) -> None:
    """
    Replace what a subscription's permissions refuse.

    Args:
        found: The results of a load; changed in place.
        rows: What each subscription's queryset has of a row, by subscription and key.
    """
    cases = [case for item in found for case in _cases(item, rows)]
    told = [case for case in cases if case.news and not _begins(case)]
    _ask_in_loop([case for case in told if case.guard.in_loop])
    for case in told:
        if not case.guard.in_loop:
            refused = _attempt_ask(case)
            isolate_all()
            if refused is not None:
                case.settle(refused)
    _judge([case for case in cases if case.instance is not None and case.guard.judges])


def _judge(cases: Sequence[_Case]) -> None:
    """Ask object permissions, in the database session in which the rows were read."""
    by_session: dict[Hashable, list[_Case]] = defaultdict(list)
    for case in cases:
        by_session[case.watch.context.visibility.source.session].append(case)
    for some in by_session.values():
        source: Source = some[0].watch.context.visibility.source
        try:
            with source.prepared(connections[source.alias]):
                for case in some:
                    _judge_object(case)
                    isolate_all()
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:  # noqa: BLE001 (it becomes the answer)
            for case in some:
                case.settle(refusal(error))


def _cases(item: Found, rows: Mapping[tuple[Any, Hashable], Model | None]) -> list[_Case]:
    cases = []
    for watch in item.job.watches:
        guard = watch.context.guard
        if guard.open or watch in item.moved or (watch.begun is not None and not guard.judges):
            continue
        outcome = item.special.get(watch, item.outcome)
        shown = item.job.shown(watch)
        if not isinstance(outcome, View):
            continue
        # It may be what is not shown of a row that decides whether it may be seen.
        news = outcome.digest != shown
        if news or (guard.judges and outcome.body is not None):
            instance = rows.get((watch, item.job.key))
            cases.append(_Case(item, watch, _action(shown, outcome), instance, news))
    return cases


def _action(shown: bytes | None, outcome: View) -> str:
    if outcome.body is None:
        return "delete"
    return "create" if shown == NOTHING else "update"


def _begins(case: _Case) -> bool:
    # The request itself was checked before its action was called.
    return case.watch.begun is not None


def _attempt_ask(case: _Case) -> Refusal | None:
    occupation().enter(case.owner, "check_permissions", (case.watch,))
    try:
        origin = case.watch.context.visibility.origin
        return origin.run(case.guard.ask, case.action, case.kwargs)  # type: ignore[no-any-return]
    except BaseException as error:  # noqa: BLE001 (it becomes the answer)
        return refusal(contained(error))


def _ask_in_loop(cases: Sequence[_Case]) -> None:
    if not cases:
        return

    at = occupation()
    at.leave()  # the thread only waits
    # Others wait for this thread, unless it serves suspects.
    patience = LONG_SHARE * conf.get().HOOK_TIMEOUT if at.alone else threads.PATIENCE

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
    answers = future.result(patience + PATIENCE)
    late = [case for case, answer in zip(cases, answers, strict=True) if _is_late(answer)]
    if late:
        raise _held(late)
    for case, answer in zip(cases, answers, strict=True):
        if isinstance(answer, Refusal):
            case.settle(answer)


def _is_late(answer: object) -> bool:
    return isinstance(answer, asyncio.Task)


def _held(late: Sequence[_Case]) -> ThreadHeld:
    """Return the error that has others go on without those whose permissions do not answer."""
    held, owner = Held(), late[0].owner
    if occupation().alone:
        logger.error("%s.check_permissions did not answer; nothing is shown.", owner.__qualname__)
        held.give_up()
    held.end()  # what was asked is cancelled, and holds no thread
    watches = tuple(case.watch for case in late if case.owner is owner)
    return ThreadHeld(owner, "check_permissions", watches, held)


def _judge_object(case: _Case) -> None:
    """A row that may not be seen (any more) is not there; asking for it is refused."""
    outcome = case.found.special.get(case.watch, case.found.outcome)
    if case.instance is None or isinstance(outcome, Refusal):
        return
    context = case.watch.context
    occupation().enter(case.owner, "check_object_permissions", (case.watch,))
    action = context.asked if _begins(case) else case.action
    refused = context.visibility.context.run(
        case.guard.ask_object, case.instance, action, case.kwargs
    )
    if refused is not None:
        # A row of a list is left out; who asked for one row is told.
        asked_for_it = _begins(case) and not context.lists
        hidden = refused.status == PermissionDenied.status_code and not asked_for_it
        case.settle(ABSENT if hidden else refused)
