"""
Checks permissions for every frame, for all subscriptions of a load together.

Object permissions come first, before a row is rendered: a hidden row must not be noticeable. The action's
permissions come last, where there is a frame to send. Synchronous permissions run in the loader thread,
asynchronous ones together in one task of the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.db import InterfaceError, OperationalError

from pgobserve import conf
from pgobserve.cohorts.guard import PERMISSION_TIMEOUT, log_object_failed, refusal
from pgobserve.cohorts.subscription_context import context_of
from pgobserve.database.connection_watchdog import attempt, is_locked, is_lost
from pgobserve.database.session import isolate_all
from pgobserve.hub.outcome import ABSENT, NOTHING, UNREAD, Refusal, View
from pgobserve.logs import fields
from pgobserve.workers import thread_pool
from pgobserve.workers.occupation import contained, occupation
from pgobserve.workers.pool_worker import Held, ThreadHeld

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

    from pgobserve.cohorts.guard import Guard
    from pgobserve.hub.load_requests import LoadRequest, LoadResult
    from pgobserve.hub.outcome import Outcome
    from pgobserve.hub.subscriptions import Subscription

logger = logging.getLogger(__name__)

#: Share of ``HOOK_TIMEOUT`` that asynchronous permissions may take in a lane of their own.
LONG_SHARE: Final = 0.8

#: A row that is absent because its permissions could not be checked; the loader retries it.
UNJUDGED: Final = View(None, NOTHING)


def hidden(
    request: LoadRequest,
    subscription: Subscription,
    instance: Model,
    connection: BaseDatabaseWrapper,
) -> Outcome | None:
    """
    Return the outcome for a row that object permissions hide; None if the subscriber may see it.

    Args:
        request: The row that is read.
        subscription: The subscription, which has object permissions.
        connection: The connection that has read it, in the subscription's database session.
    """
    context = context_of(subscription)
    starts = subscription.on_started is not None
    action = context.action if starts else _action(request.shown(subscription))
    kwargs = {"pk": context.shown(request.key)}
    owner = context.consumer_class
    occupation().enter(owner, "check_object_permissions", (subscription,))
    try:
        seen = attempt(lambda: context.guard.sees(instance, action, kwargs), connection)
    except (OperationalError, InterfaceError) as error:
        if is_lost(connection) or is_locked(error):
            raise
        log_object_failed(owner, instance, error)
        # For a new subscriber such a row must look like a missing one.
        return UNJUDGED if starts else UNREAD
    return None if seen else ABSENT


def is_unjudged(unseen: Mapping[Subscription, Outcome]) -> bool:
    """Return whether some permissions could not be checked, so that the row must be read again."""
    return any(outcome is UNJUDGED or outcome is UNREAD for outcome in unseen.values())


@dataclass(slots=True)
class _RowCase:
    """A frame to send, if the permissions of its action allow it."""

    result: LoadResult
    subscription: Subscription
    action: str

    @property
    def guard(self) -> Guard:
        return context_of(self.subscription).guard

    @property
    def owner(self) -> type:
        return context_of(self.subscription).consumer_class

    @property
    def kwargs(self) -> dict[str, Any]:
        key = self.result.job.key
        return (
            {} if key is None else {"pk": context_of(self.subscription).shown(key)}
        )  # the number of rows has none

    def settle(self, outcome: Outcome) -> None:
        special: Any = self.result.special
        special[self.subscription] = outcome


def check(results: Sequence[LoadResult]) -> None:
    """
    Replace the outcomes that the permissions of a frame's action refuse.

    Args:
        results: The results of a load, in which hidden rows are absent; changed in place.
    """
    cases = [case for result in results for case in _cases(result)]
    _check_in_loop([case for case in cases if case.guard.in_loop])
    for case in cases:
        if not case.guard.in_loop:
            refused = _check_here(case)
            isolate_all()
            if refused is not None:
                case.settle(refused)


def _cases(result: LoadResult) -> Iterator[_RowCase]:
    for each in result.job.watches:
        # The permissions of a request were checked before its action ran.
        if context_of(each).guard.allows_all or each in result.moved or each.on_started is not None:
            continue
        outcome = result.special.get(each, result.outcome)
        had = result.job.shown(each)
        if isinstance(outcome, View):
            # A delete shows no data. Permissions that look the row up would refuse it.
            if outcome.digest != had and outcome.body is not None:
                yield _RowCase(result, each, _action(had))
        elif outcome.named:
            yield _RowCase(result, each, _action(had))


def _action(had: bytes | None) -> str:
    return "create" if had == NOTHING else "update"


def _check_here(case: _RowCase) -> Refusal | None:
    occupation().enter(case.owner, "check_permissions", (case.subscription,))
    origin = context_of(case.subscription).visibility.origin
    try:
        return origin.run(case.guard.check, case.action, case.kwargs)
    except BaseException as error:  # noqa: BLE001 (it becomes the answer)
        return refusal(contained(error), case.owner)


def _check_in_loop(cases: Sequence[_RowCase]) -> None:
    if not cases:
        return

    at = occupation()
    at.leave()  # the thread only waits
    # Other subscriptions wait for this thread, except in a lane.
    timeout = LONG_SHARE * conf.get().HOOK_TIMEOUT if at.alone else thread_pool.HOLD_TIMEOUT

    async def check_all() -> list[Refusal | asyncio.Task[Any] | None]:
        loop = asyncio.get_running_loop()
        tasks = [
            loop.create_task(
                case.guard.check_in_loop(case.action, case.kwargs),
                context=context_of(case.subscription).visibility.origin.here(),
            )
            for case in cases
        ]
        try:
            await asyncio.wait(tasks, timeout=timeout)
        finally:
            for task in tasks:
                task.cancel()
        return [task.result() if task.done() else task for task in tasks]

    future = asyncio.run_coroutine_threadsafe(check_all(), cases[0].guard.loop)
    answers = future.result(timeout + PERMISSION_TIMEOUT)
    late = [
        case
        for case, answer in zip(cases, answers, strict=True)
        if isinstance(answer, asyncio.Task)
    ]
    if late:
        raise _held(late)
    for case, answer in zip(cases, answers, strict=True):
        if isinstance(answer, Refusal):
            case.settle(answer)


def _held(late: Sequence[_RowCase]) -> ThreadHeld:
    """Return the error by which other subscriptions go on without those whose permissions are late."""
    held, owner = Held(), late[0].owner
    if occupation().alone:
        logger.error(
            "%s.check_permissions did not return; the client receives no row.",
            owner.__qualname__,
            extra=fields(consumer=owner),
        )
        held.give_up()
    held.end()  # the checks are cancelled, and hold no thread
    watches = tuple(case.subscription for case in late if case.owner is owner)
    return ThreadHeld(owner, "check_permissions", watches, held)
