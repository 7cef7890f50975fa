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
from typing import TYPE_CHECKING, Any, Final

from django.db import InterfaceError, OperationalError

from pgobserve import conf
from pgobserve.cohorts.guard import PERMISSION_TIMEOUT, log_object_failed, refusal
from pgobserve.cohorts.subscription_context import context_of
from pgobserve.database.connection_watchdog import attempt, is_lost
from pgobserve.database.session import isolate_all
from pgobserve.hub.outcome import ABSENT, NOTHING, UNREAD, Refusal, View
from pgobserve.logs import fields
from pgobserve.sql.keys import shown
from pgobserve.workers import thread_pool
from pgobserve.workers.held_threads import Held, ThreadHeld
from pgobserve.workers.occupation import contained, occupation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

    from pgobserve.cohorts.guard import Guard
    from pgobserve.hub.list_subscription import Subscription
    from pgobserve.hub.load_requests import LoadRequest, LoadResult
    from pgobserve.hub.outcome import Outcome

logger = logging.getLogger(__name__)

#: Share of ``HOOK_TIMEOUT`` that asynchronous permissions have where nobody else waits for them.
LONG_SHARE: Final = 0.8

#: A row that is absent because its permissions could not be checked: it is to be read again.
UNJUDGED: Final = View(None, NOTHING)


def hidden(
    job: LoadRequest,
    watch: Subscription,
    instance: Model,
    connection: BaseDatabaseWrapper,
) -> Outcome | None:
    """
    Return what a subscription has in place of a row that its permissions hide; None if it is seen.

    Args:
        job: The row that is read.
        watch: The subscription; :attr:`Guard.checks_objects` is true for it.
        instance: The row as the subscription's queryset has it.
        connection: By which it was read, in the database session that belongs to it.
    """
    context = context_of(watch)
    starts = watch.on_started is not None
    action = context.action if starts else _action(job.shown(watch))
    owner = context.consumer_class
    occupation().enter(owner, "check_object_permissions", (watch,))
    try:
        seen = attempt(
            lambda: context.guard.sees(instance, action, {"pk": shown(job.key)}), connection
        )
    except (OperationalError, InterfaceError) as error:
        if is_lost(connection):
            raise
        log_object_failed(owner, instance, error)
        # A client that has just asked must not see the difference to a row that is not there.
        return UNJUDGED if starts else UNREAD
    return None if seen else ABSENT


def is_unjudged(unseen: Mapping[Subscription, Outcome]) -> bool:
    """Tell whether some of what :func:`hidden` returned is to be found out again."""
    return any(outcome is UNJUDGED or outcome is UNREAD for outcome in unseen.values())


@dataclass(slots=True)
class _RowCase:
    """A frame that would be sent, and needs the permission of its action."""

    found: LoadResult
    watch: Subscription
    action: str

    @property
    def guard(self) -> Guard:
        return context_of(self.watch).guard

    @property
    def owner(self) -> type:
        return context_of(self.watch).consumer_class

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
    _check_in_loop([case for case in cases if case.guard.in_loop])
    for case in cases:
        if not case.guard.in_loop:
            refused = _check_here(case)
            isolate_all()
            if refused is not None:
                case.settle(refused)


def _cases(item: LoadResult) -> Iterator[_RowCase]:
    for watch in item.job.watches:
        # A request was checked before its action was called.
        if (
            context_of(watch).guard.allows_all
            or watch in item.moved
            or watch.on_started is not None
        ):
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


def _check_here(case: _RowCase) -> Refusal | None:
    occupation().enter(case.owner, "check_permissions", (case.watch,))
    origin = context_of(case.watch).visibility.origin
    try:
        return origin.run(case.guard.check, case.action, case.kwargs)
    except BaseException as error:  # noqa: BLE001 (it becomes the answer)
        return refusal(contained(error), case.owner)


def _check_in_loop(cases: Sequence[_RowCase]) -> None:
    if not cases:
        return

    at = occupation()
    at.leave()  # the thread only waits
    # Others wait for this thread, unless it serves suspects.
    patience = LONG_SHARE * conf.get().HOOK_TIMEOUT if at.alone else thread_pool.HOLD_TIMEOUT

    async def check_all() -> list[Refusal | asyncio.Task[Any] | None]:
        loop = asyncio.get_running_loop()
        tasks = [
            loop.create_task(
                case.guard.check_in_loop(case.action, case.kwargs),
                context=context_of(case.watch).visibility.origin.here(),
            )
            for case in cases
        ]
        try:
            await asyncio.wait(tasks, timeout=patience)
        finally:
            for task in tasks:
                task.cancel()
        return [task.result() if task.done() else task for task in tasks]

    future = asyncio.run_coroutine_threadsafe(check_all(), cases[0].guard.loop)
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
