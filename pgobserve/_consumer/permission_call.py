"""
Calls permissions: synchronous, asynchronous, composed, and DRF's.

:func:`check` runs in the thread that calls it, so that a thread can check many sockets. :func:`check_async` is
for the event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from inspect import isawaitable, signature
from typing import Any, Literal

from asgiref.sync import iscoroutinefunction

from pgobserve.scope_utils import drf_request, ensure_async

Scope = Mapping[str, Any]
#: Permissions may annotate the consumer class that they are for; no parameter type allows subclasses.
Consumer = Any
Verdict = bool | Awaitable[bool]
Method = Literal["can_connect", "has_permission", "has_object_permission"]

_reading: ContextVar[bool] = ContextVar("pgobserve_reading", default=False)


@contextmanager
def reading() -> Iterator[None]:
    """
    Check permissions for a frame of a subscription in the block.

    DCRF's permissions receive what happened to the row, such as ``update``. DRF's receive a ``GET``: a
    subscriber only reads.
    """
    token = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(token)


def is_reading() -> bool:
    """Return whether the permissions are those of a frame."""
    return _reading.get()


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
    elif not hasattr(permission, "has_object_permission"):
        given = True
    elif _has_drf_signature(type(permission)):  # type: ignore[arg-type]
        action = "retrieve" if is_reading() else case.action
        request = drf_request(case.scope, action)
        given = permission.has_object_permission(request, case.consumer, case.instance)
    else:
        given = permission.has_object_permission(
            **common, action=case.action, instance=case.instance, **case.kwargs
        )
    return given


@lru_cache(maxsize=1024)
def _has_drf_signature(cls: type) -> bool:
    """Return whether a permission takes ``(request, view, obj)``, as DRF's do."""
    method: Any = cls.has_object_permission  # type: ignore[attr-defined]
    arguments = signature(method).parameters
    return not (
        any(each.kind is each.VAR_KEYWORD for each in arguments.values())
        or {"scope", "instance"} <= arguments.keys()
    )


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
