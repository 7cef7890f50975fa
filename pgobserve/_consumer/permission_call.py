"""
How a permission is asked, whether it is synchronous, asynchronous, composed or DRF's.

Asking never changes the thread by itself: :func:`ask` answers where it is called, so that many
sockets can be decided on in one thread; :func:`answer` is for the event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, Literal

from asgiref.sync import iscoroutinefunction

from pgobserve.scope_utils import ensure_async

Scope = Mapping[str, Any]
#: A permission may name the consumer class that it is for; no type of a parameter allows subclasses.
Consumer = Any
Answer = bool | Awaitable[bool]
Question = Literal["can_connect", "has_permission", "has_object_permission"]


@dataclass(frozen=True, slots=True)
class PermissionCase:
    """What a permission is asked about."""

    scope: Scope
    consumer: Consumer
    action: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    instance: Any = None
    message: Any = None


class PermissionRequest:
    """A permission that takes a whole case, not the arguments that users' permissions take."""

    #: Permissions that it asks in turn; without any, it may block.
    operands: tuple[Any, ...] = ()

    def ask(self, question: Question, case: PermissionCase) -> Answer:
        """Answer in the thread that this is called in."""
        raise NotImplementedError


def ask(permission: Any, question: Question, case: PermissionCase) -> Answer:
    """Put a question to any permission, in the thread that this is called in."""
    if isinstance(permission, PermissionRequest):
        return permission.ask(question, case)
    common = {"scope": case.scope, "consumer": case.consumer}
    given: Answer
    if question == "can_connect":
        given = permission.can_connect(**common, message=case.message)
    elif question == "has_permission":
        given = permission.has_permission(**common, action=case.action, **case.kwargs)
    elif hasattr(permission, "has_object_permission"):
        given = permission.has_object_permission(
            **common, action=case.action, instance=case.instance, **case.kwargs
        )
    else:
        given = True
    return given


async def answer(permission: Any, question: Question, case: PermissionCase) -> bool:
    """Put a question to any permission: in a thread if it is, or contains, a synchronous one."""
    if needs_thread(permission, question):
        return bool(await ensure_async(ask)(permission, question, case))
    given = ask(permission, question, case)
    return bool(await given if isawaitable(given) else given)


def needs_thread(permission: Any, question: Question) -> bool:
    """Return whether answering may block."""
    if isinstance(permission, PermissionRequest):
        operands = permission.operands
        return not operands or any(needs_thread(operand, question) for operand in operands)
    return not iscoroutinefunction(getattr(permission, question, None))


def chain(steps: tuple[tuple[Any, Question], ...], case: PermissionCase, *, until: bool) -> Answer:
    """Ask one after the other until an answer equals ``until``."""
    for index, (permission, question) in enumerate(steps):
        given = ask(permission, question, case)
        if isawaitable(given):
            return _chain_later(given, steps[index + 1 :], case, until=until)
        if bool(given) is until:
            return until
    return not until


async def _chain_later(
    first: Awaitable[bool],
    steps: tuple[tuple[Any, Question], ...],
    case: PermissionCase,
    *,
    until: bool,
) -> bool:
    if bool(await first) is until:
        return until
    for permission, question in steps:
        if await answer(permission, question, case) is until:
            return until
    return not until


async def negated(given: Awaitable[bool]) -> bool:
    """Await an answer and return the opposite."""
    return not await given
