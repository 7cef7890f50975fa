"""
Who may connect, act and see an object.

Permissions are DCRF's: classes with ``has_permission(scope, consumer, action, **kwargs)``, sync or
async, composed by ``&``, ``|`` and ``~``; DRF's own permission classes can be used and mixed in.
``has_object_permission`` is asked too, as DRF does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import isawaitable
from typing import Any

from asgiref.sync import markcoroutinefunction
from rest_framework import permissions as drf

from pgobserve._consumer.permission_call import (
    Answer,
    Consumer,
    PermissionCase,
    PermissionRequest,
    Question,
    Scope,
    answer,
    ask,
    chain,
    negated,
)
from pgobserve.scope_utils import HTTP_METHODS, drf_request

#: What ``permission_classes`` holds: classes, or compositions of them.
PermissionClass = Callable[[], Any]


class OperationHolderMixin:
    """Gives classes and compositions of them ``&``, ``|`` and ``~``."""

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
    """``~A``: makes the permission when called, as a class does."""

    def __init__(self, operator_class: Any, op1_class: Any) -> None:
        self.operator_class = operator_class
        self.op1_class = op1_class

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.operator_class(adapt(self.op1_class()))


class OperandHolder(OperationHolderMixin):
    """``A & B`` or ``A | B``: makes the permission when called, as a class does."""

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

    Override any of the three; each may be ``async``. A synchronous one runs in a thread and may
    use the ORM.
    """

    # These two are asynchronous, as DCRF's are, but not written so: an override may be either.
    @markcoroutinefunction
    def has_permission(
        self, scope: Scope, consumer: Consumer, action: str, **kwargs: Any
    ) -> Answer:
        """Return whether the client may take ``action``; ``kwargs`` is what it sent."""
        return _later(False)

    @markcoroutinefunction
    def can_connect(self, scope: Scope, consumer: Consumer, message: Any = None) -> Answer:
        """Return whether the socket may be opened."""
        return _later(True)

    def has_object_permission(
        self, scope: Scope, consumer: Consumer, action: str, instance: Any, **kwargs: Any
    ) -> Answer:
        """Return whether the client may take ``action`` on ``instance``."""
        return True


class AllowAny(BasePermission):
    """Everyone may do everything."""

    async def has_permission(
        self, scope: Scope, consumer: Consumer, action: str, **kwargs: Any
    ) -> bool:
        """Return True."""
        return True


class IsAuthenticated(BasePermission):
    """Users that are logged in may do everything; others may connect, and nothing more."""

    async def has_permission(
        self, scope: Scope, consumer: Consumer, action: str, **kwargs: Any
    ) -> bool:
        """Return whether the scope has a user that is authenticated."""
        user = scope.get("user")
        return bool(user and user.pk and user.is_authenticated)


class WrappedDRFPermission(BasePermission, PermissionRequest):
    """A permission of DRF, asked with a request made from the scope."""

    mapped_actions: Mapping[str, str] = HTTP_METHODS

    def __init__(self, permission: Any) -> None:
        self.permission = permission

    async def has_permission(
        self, scope: Scope, consumer: Consumer, action: str, **kwargs: Any
    ) -> bool:
        """Return what DRF's permission says of a request with that action's method."""
        return await answer(self, "has_permission", PermissionCase(scope, consumer, action, kwargs))

    async def can_connect(self, scope: Scope, consumer: Consumer, message: Any = None) -> bool:
        """Return what DRF's permission says of a HEAD request."""
        case = PermissionCase(scope, consumer, "connect", message=message)
        return await answer(self, "can_connect", case)

    def ask(self, question: Question, case: PermissionCase) -> Answer:
        """Put a question to DRF's permission, in the thread that this is called in."""
        query = case.kwargs.get("query")
        request = drf_request(
            case.scope,
            case.action,
            methods=self.mapped_actions,
            query=query if isinstance(query, Mapping) else None,
            data=case.kwargs.get("data"),
        )
        given: Answer
        if question == "has_object_permission":
            given = self.permission.has_object_permission(request, case.consumer, case.instance)
        else:
            given = self.permission.has_permission(request, case.consumer)
        return given


class _Operation(BasePermission, PermissionRequest):
    """
    A composition.

    Its operands are asked where it is asked, without a further change of thread; only when one of
    them turns out to be asynchronous, the rest goes on in the event loop.
    """

    operands: tuple[Any, ...]

    async def has_permission(
        self, scope: Scope, consumer: Consumer, action: str, **kwargs: Any
    ) -> bool:
        """Return what the operands say together."""
        return await answer(self, "has_permission", PermissionCase(scope, consumer, action, kwargs))

    async def can_connect(self, scope: Scope, consumer: Consumer, message: Any = None) -> bool:
        """Return what the operands say together."""
        case = PermissionCase(scope, consumer, "connect", message=message)
        return await answer(self, "can_connect", case)


class AND(_Operation):
    """Both operands must agree."""

    def __init__(self, op1: Any, op2: Any) -> None:
        self.op1, self.op2 = self.operands = (op1, op2)

    def ask(self, question: Question, case: PermissionCase) -> Answer:
        """Ask the second operand if the first agrees."""
        return chain(((self.op1, question), (self.op2, question)), case, until=False)


class OR(_Operation):
    """One operand must agree."""

    def __init__(self, op1: Any, op2: Any) -> None:
        self.op1, self.op2 = self.operands = (op1, op2)

    def ask(self, question: Question, case: PermissionCase) -> Answer:
        """Ask the second operand if the first refuses."""
        operands: tuple[Any, ...] = (self.op1, self.op2)
        if question == "has_object_permission":
            # An operand that refuses the action has no say about its object; as in DRF.
            operands = tuple(_Whole(operand) for operand in operands)
        return chain(tuple((operand, question) for operand in operands), case, until=True)


class NOT(_Operation):
    """The operand must refuse."""

    def __init__(self, op1: Any) -> None:
        self.op1 = op1
        self.operands = (op1,)

    def ask(self, question: Question, case: PermissionCase) -> Answer:
        """Ask the operand and say the opposite."""
        given = ask(self.op1, question, case)
        return negated(given) if isawaitable(given) else not given


class _Whole(_Operation):
    """An operand that is asked about the action before it is asked about the object."""

    def __init__(self, op1: Any) -> None:
        self.op1 = op1
        self.operands = (op1,)

    def ask(self, question: Question, case: PermissionCase) -> Answer:
        """Ask both questions."""
        return chain(
            ((self.op1, "has_permission"), (self.op1, "has_object_permission")), case, until=False
        )


def adapt(permission: Any) -> Any:
    """Return a permission instance of ours for one that may be DRF's, or a composition of DRF's."""
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
    """Return one permission for each of ``permission_classes``."""
    return [adapt(make()) for make in classes]


def decide(
    permission: Any,
    scope: Scope,
    consumer: Consumer,
    action: str,
    kwargs: Mapping[str, Any],
) -> Answer:
    """
    Ask whether ``action`` may be taken, in the thread that this is called in.

    Returns:
        The answer, or an awaitable of it if the permission is asynchronous, to be awaited in the
        event loop.
    """
    return ask(permission, "has_permission", PermissionCase(scope, consumer, action, kwargs))


def decide_object(
    permission: Any,
    scope: Scope,
    consumer: Consumer,
    action: str,
    instance: Any,
    kwargs: Mapping[str, Any],
) -> Answer:
    """Ask whether ``action`` may be taken on ``instance``; else like :func:`decide`."""
    case = PermissionCase(scope, consumer, action, kwargs, instance)
    return ask(permission, "has_object_permission", case)


def judges_objects(permission: Any) -> bool:
    """Return whether a permission has anything to say about objects."""
    if isinstance(permission, _Operation):
        return any(judges_objects(operand) for operand in permission.operands)
    if isinstance(permission, WrappedDRFPermission):
        of_class = getattr(type(permission.permission), "has_object_permission", None)
        return of_class is not drf.BasePermission.has_object_permission
    of_class = getattr(type(permission), "has_object_permission", None)
    return of_class not in {None, BasePermission.has_object_permission}


async def _later(given: bool) -> bool:
    return given
