"""
Calls permissions: synchronous, asynchronous, composed, and DRF's.

:func:`check` runs in the thread that calls it, so that a thread can check many sockets. :func:`check_async` is
for the event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, Literal

from asgiref.sync import iscoroutinefunction

from pgobserve.scope_utils import ensure_async

Scope = Mapping[str, Any]
#: Permissions may annotate the consumer class that they are for; no parameter type allows subclasses.
Consumer = Any
Verdict = bool | Awaitable[bool]
Method = Literal["can_connect", "has_permission", "has_object_permission"]


@dataclass(frozen=True, slots=True)
class PermissionCase:
    """The arguments of a permission check."""

    scope: Scope
    consumer: Consumer
    action: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    instance: Any = None
    message: Any = None


class CasePermission:
    """A permission that takes a whole case instead of the arguments of projects' permissions."""

    #: Permissions that it calls in turn; without any, it may block.
    operands: tuple[Any, ...] = ()

    def check(self, method: Method, case: PermissionCase) -> Verdict:
        """Return the verdict, in the calling thread."""
        raise NotImplementedError


def check(permission: Any, method: Method, case: PermissionCase) -> Verdict:
    """Return a permission's verdict, in the calling thread."""
    if isinstance(permission, CasePermission):
        return permission.check(method, case)
    common = {"scope": case.scope, "consumer": case.consumer}
    given: Verdict
    if method == "can_connect":
        given = permission.can_connect(**common, message=case.message)
    elif method == "has_permission":
        given = permission.has_permission(**common, action=case.action, **case.kwargs)
    elif hasattr(permission, "has_object_permission"):
        given = permission.has_object_permission(
            **common, action=case.action, instance=case.instance, **case.kwargs
        )
    else:
        given = True
    return given


async def check_async(permission: Any, method: Method, case: PermissionCase) -> bool:
    """Return a permission's verdict; in a thread if it is, or contains, a synchronous one."""
    if needs_thread(permission, method):
        return bool(await ensure_async(check)(permission, method, case))
    given = check(permission, method, case)
    return bool(await given if isawaitable(given) else given)


def needs_thread(permission: Any, method: Method) -> bool:
    """Return whether a check may block."""
    if isinstance(permission, CasePermission):
        operands = permission.operands
        return not operands or any(needs_thread(operand, method) for operand in operands)
    return not iscoroutinefunction(getattr(permission, method, None))


def chain(steps: tuple[tuple[Any, Method], ...], case: PermissionCase, *, until: bool) -> Verdict:
    """Check permissions in turn until a verdict equals ``until``."""
    for index, (permission, method) in enumerate(steps):
        given = check(permission, method, case)
        if isawaitable(given):
            return _chain_later(given, steps[index + 1 :], case, until=until)
        if bool(given) is until:
            return until
    return not until


async def _chain_later(
    first: Awaitable[bool],
    steps: tuple[tuple[Any, Method], ...],
    case: PermissionCase,
    *,
    until: bool,
) -> bool:
    if bool(await first) is until:
        return until
    for permission, method in steps:
        if await check_async(permission, method, case) is until:
            return until
    return not until


async def negated(given: Awaitable[bool]) -> bool:
    """Await a verdict and return the opposite."""
    return not await given
