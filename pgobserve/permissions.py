"""
Permissions to connect, to act, and to see an object.

Permissions are DCRF's: classes with ``has_permission(scope, consumer, action, **kwargs)``, sync or async,
composed by ``&``, ``|`` and ``~``. DRF's permission classes work, too, also in compositions, and
``has_object_permission`` is called as DRF does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import isawaitable
from typing import Any

from asgiref.sync import markcoroutinefunction
from rest_framework import permissions as drf

from pgobserve._consumer.permission_call import (
    CasePermission,
    Consumer,
    Method,
    PermissionCase,
    Scope,
    Verdict,
    chain,
    check,
    check_async,
    is_reading,
    negated,
)
from pgobserve._former_names import resolver
from pgobserve.scope_utils import HTTP_METHODS, drf_request

#: An entry of ``permission_classes``: a class, or a composition of classes.
PermissionClass = Callable[[], Any]


class OperationHolderMixin:
    """Adds ``&``, ``|`` and ``~`` to classes and their compositions."""

    def __and__(self, other: Any) -> OperandHolder:
        return OperandHolder(AND, self, other)

    def __or__(self, other: Any) -> OperandHolder:
        return OperandHolder(OR, self, other)

    def __rand__(self, other: Any) -> OperandHolder:
        return OperandHolder(AND, other, self)

    def __ror__(self, other: Any) -> OperandHolder:
        return OperandHolder(OR, other, self)

    def __invert__(self) -> SingleOperandHolder:
        return SingleOperandHolder(NOT, self)


class SingleOperandHolder(OperationHolderMixin):
    """``~A``: creates the permission when called, as a class does."""

    def __init__(self, operator_class: Any, op1_class: Any) -> None:
        self.operator_class = operator_class
        self.op1_class = op1_class

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.operator_class(adapt(self.op1_class()))


class OperandHolder(OperationHolderMixin):
    """``A & B`` or ``A | B``: creates the permission when called, as a class does."""

    def __init__(self, operator_class: Any, op1_class: Any, op2_class: Any) -> None:
        self.operator_class = operator_class
        self.op1_class = op1_class
        self.op2_class = op2_class

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.operator_class(adapt(self.op1_class()), adapt(self.op2_class()))


class BasePermissionMetaclass(OperationHolderMixin, type):  # type: ignore[misc]
    """Makes permission classes composable."""


class BasePermission(metaclass=BasePermissionMetaclass):
    """
    The base of permissions.

    Override any of the three methods; each may be ``async``. A synchronous one runs in a thread and may
    use the ORM.
    """

    # Marked as coroutine functions, as DCRF's are, but typed so that an override may be either.
    @markcoroutinefunction
    def has_permission(
        self, scope: Scope, consumer: Consumer, action: str, **kwargs: Any
    ) -> Verdict:
        """Return whether the client may call ``action``; ``kwargs`` are its arguments."""
        return _later(False)

    @markcoroutinefunction
    def can_connect(self, scope: Scope, consumer: Consumer, message: Any = None) -> Verdict:
        """Return whether the socket may be opened."""
        return _later(True)

    def has_object_permission(
        self, scope: Scope, consumer: Consumer, action: str, instance: Any, **kwargs: Any
    ) -> Verdict:
        """Return whether the client may call ``action`` on ``instance``."""
        return True


class AllowAny(BasePermission):
    """Allows everything."""

    async def has_permission(
        self, scope: Scope, consumer: Consumer, action: str, **kwargs: Any
    ) -> bool:
        """Return True."""
        return True


class IsAuthenticated(BasePermission):
    """Allows everything to authenticated users; others may only connect."""

    async def has_permission(
        self, scope: Scope, consumer: Consumer, action: str, **kwargs: Any
    ) -> bool:
        """Return whether the scope has an authenticated user."""
        user = scope.get("user")
        return bool(user and user.pk and user.is_authenticated)


class _CaseBased(BasePermission, CasePermission):
    """A permission of ours, which checks a case."""

    async def has_permission(
        self, scope: Scope, consumer: Consumer, action: str, **kwargs: Any
    ) -> bool:
        """Return whether ``action`` is allowed."""
        case = PermissionCase(scope, consumer, action, kwargs)
        return await check_async(self, "has_permission", case)

    async def can_connect(self, scope: Scope, consumer: Consumer, message: Any = None) -> bool:
        """Return whether the socket may be opened."""
        case = PermissionCase(scope, consumer, "connect", message=message)
        return await check_async(self, "can_connect", case)


class WrappedDRFPermission(_CaseBased):
    """A DRF permission, called with a request made from the scope."""

    mapped_actions: Mapping[str, str] = HTTP_METHODS

    def __init__(self, permission: Any) -> None:
        self.permission = permission

    def check(self, method: Method, case: PermissionCase) -> Verdict:
        """Return the verdict, in the calling thread."""
        query = case.kwargs.get("query")
        request = drf_request(
            case.scope,
            "retrieve" if is_reading() else case.action,
            methods=self.mapped_actions,
            query=query if isinstance(query, Mapping) else None,
            data=case.kwargs.get("data"),
        )
        given: Verdict
        if method == "has_object_permission":
            given = self.permission.has_object_permission(request, case.consumer, case.instance)
        else:
            given = self.permission.has_permission(request, case.consumer)
        return given


class _Operation(_CaseBased):
    """
    A composition.

    Its operands run in the thread of its check. If one turns out to be asynchronous, the rest runs in the
    event loop.
    """

    def __init__(self, op1: Any, op2: Any = None) -> None:
        self.op1, self.op2 = op1, op2
        self.operands = (op1,) if op2 is None else (op1, op2)


class AND(_Operation):
    """Both operands must agree."""

    def check(self, method: Method, case: PermissionCase) -> Verdict:
        """Check the second operand if the first agrees."""
        return chain(((self.op1, method), (self.op2, method)), case, until=False)


class OR(_Operation):
    """At least one operand must agree."""

    def check(self, method: Method, case: PermissionCase) -> Verdict:
        """Check the second operand if the first refuses."""
        operands = self.operands
        if method == "has_object_permission":
            # As in DRF, an operand that refuses the action does not judge the object.
            operands = tuple(map(_Whole, operands))
        return chain(tuple((operand, method) for operand in operands), case, until=True)


class NOT(_Operation):
    """The operand must refuse."""

    def check(self, method: Method, case: PermissionCase) -> Verdict:
        """Return the opposite of the operand's verdict."""
        given = check(self.op1, method, case)
        return negated(given) if isawaitable(given) else not given


class _Whole(_Operation):
    """An operand that checks the action before the object."""

    def check(self, method: Method, case: PermissionCase) -> Verdict:
        """Check both."""
        return chain(
            ((self.op1, "has_permission"), (self.op1, "has_object_permission")), case, until=False
        )


def adapt(permission: Any) -> Any:
    """Wrap a permission of DRF, or a composition of DRF's; return others as they are."""
    composed: Any = permission
    if isinstance(permission, drf.AND):
        return AND(adapt(composed.op1), adapt(composed.op2))
    if isinstance(permission, drf.OR):
        return OR(adapt(composed.op1), adapt(composed.op2))
    if isinstance(permission, drf.NOT):
        return NOT(adapt(composed.op1))
    if isinstance(permission, drf.BasePermission):
        return WrappedDRFPermission(permission)
    return permission


def instances(classes: Iterable[PermissionClass]) -> list[Any]:
    """Return a permission for each of ``permission_classes``."""
    return [adapt(make()) for make in classes]


def checks_objects(permission: Any) -> bool:
    """Return whether a permission has an object permission of its own."""
    if isinstance(permission, _Operation):
        return any(checks_objects(operand) for operand in permission.operands)
    if isinstance(permission, WrappedDRFPermission):
        of_class = getattr(type(permission.permission), "has_object_permission", None)
        return of_class is not drf.BasePermission.has_object_permission
    of_class = getattr(type(permission), "has_object_permission", None)
    return of_class not in {None, BasePermission.has_object_permission}


async def _later(given: bool) -> bool:
    return given


__getattr__ = resolver(__name__)
