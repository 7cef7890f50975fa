"""
The Python context in which a subscription's hooks run: the context of the socket's actions.

A project may keep the tenant, the user or the language in context variables. ``sync_to_async`` copies them
into its thread, so that ``list`` and ``retrieve`` see them. The loader's threads do the same. Each hook
call has its own copy, so that what it activates ends with it.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import threading
import uuid
from contextvars import Context, ContextVar, copy_context
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asgiref.sync import AsyncToSync, SyncToAsync
from django.core.cache.backends.base import BaseCache
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.urls import get_script_prefix, get_urlconf, set_script_prefix, set_urlconf
from django.utils import timezone, translation

from pgobserve import conf
from pgobserve.render.own_hooks import SameHooks

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

Result = TypeVar("Result")

#: Immutable types: equal values are interchangeable.
_PLAIN: Final = (
    str,
    bytes,
    int,
    float,
    complex,
    type(None),
    enum.Enum,
    decimal.Decimal,
    uuid.UUID,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.tzinfo,
)

#: Variables that asgiref keeps in a context for itself.
_OF_ASGIREF: Final = frozenset(
    variable
    for owner in (SyncToAsync, AsyncToSync)
    for variable in vars(owner).values()
    if isinstance(variable, ContextVar)
)

#: The key of a value that does not affect what a hook returns.
_NOTHING: Final = object()


class HookContext:
    """
    A context for hooks that run in other threads, or later.

    Args:
        context: The context; it must not change any more.
    """

    __slots__ = ("_context", "_key")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._key: Hashable = None

    @classmethod
    def current(cls) -> HookContext:
        """Return a copy of the caller's context."""
        return cls(copy_context())

    @property
    def key(self) -> Hashable:
        """
        Identifies what a hook may read: contexts with equal keys may share results.

        It has the language, time zone and URL configuration in effect, and the values of the project's
        context variables.
        """
        if self._key is None:
            self._key = self.here().run(_key_of_current)
        return self._key

    @property
    def common(self) -> bool:
        """Whether none of the project's context variables is set."""
        key: Any = self.key
        return not key[-1]

    def here(self) -> Context:
        """Return a copy for the current thread."""
        context = Context()
        context.run(_enter, self._context)
        return context

    def left_by(self, here: Context, before: Context) -> HookContext:
        """
        Return the context as hooks left it; this one if they changed nothing that hooks read.

        Args:
            here: The context from :meth:`here` in which the hooks ran.
            before: A copy of it from before they ran.
        """
        if len(here) == len(before) and all(before.get(each) is here[each] for each in here):
            return self
        left = HookContext(here.copy())
        return self if left.key == self.key else left

    def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """Call a function in a copy, in the current thread."""
        return self.here().run(function, *args)


def _enter(context: Context) -> None:
    thread = threading.get_ident()
    for variable, value in context.items():
        # In newer versions of asgiref, a Local (Django's language, for example) belongs to one thread.
        moves = _is_local(value) and value.thread_id != thread
        variable.set(type(value)(thread, value.data) if moves else value)


def _is_local(value: Any) -> bool:
    return type(value).__module__ == "asgiref.local"


def _key_of_current() -> Hashable:
    ignored = _OF_ASGIREF | _of_django()
    names = frozenset(conf.get().IGNORED_CONTEXT_VARIABLES)
    values = frozenset(
        (variable, key)
        for variable, value in copy_context().items()
        if variable not in ignored and variable.name not in names
        if (key := _key_of(value)) is not _NOTHING
    )
    zone = timezone.get_current_timezone()
    return translation.get_language(), str(zone), zone, get_urlconf(), get_script_prefix(), values


@cache
def _of_django() -> frozenset[ContextVar[Any]]:
    """Return the variables of the language, time zone and URL configuration."""

    def activate() -> None:
        translation.activate("en")
        timezone.activate(datetime.UTC)
        set_urlconf("urls")
        set_script_prefix("/")

    context = Context()
    context.run(activate)
    return frozenset(context)


def _key_of(value: Any) -> Hashable:
    """Return the identity of a value; a mutable object equals only itself."""
    # Not isinstance(): it would evaluate a lazy object, such as the user that Channels puts into a scope.
    kind = type(value)
    if _is_local(value):
        parts = ((name, _key_of(each)) for name, each in value.data.items())
        return frozenset(part for part in parts if part[1] is not _NOTHING) or _NOTHING
    if issubclass(kind, BaseCache | BaseDatabaseWrapper) or kind.__module__.startswith("asgiref."):
        return _NOTHING
    if issubclass(kind, decimal.Context):
        return _of_arithmetic(value)
    if issubclass(kind, Model):
        return kind, frozenset(_of_model(value))
    if kind in (tuple, frozenset):
        return kind, kind(_key_of(each) for each in value)
    return (kind, value) if issubclass(kind, _PLAIN) and _is_complete(value) else SameHooks(value)


def _is_complete(value: Any) -> bool:
    """Return whether equal values are interchangeable: a subclass may have attributes."""
    return isinstance(value, enum.Enum | datetime.tzinfo) or not getattr(value, "__dict__", None)


def _of_model(instance: Model) -> Iterator[tuple[str, Hashable]]:
    for name, value in vars(instance).items():
        if name != "_state":
            yield name, _key_of(value)


def _of_arithmetic(context: decimal.Context) -> Hashable:
    """Return how numbers are rounded. Any code that calculates sets a context, mostly the default."""
    arithmetic = _arithmetic(context)
    return _NOTHING if arithmetic == _arithmetic(decimal.DefaultContext) else arithmetic


def _arithmetic(context: decimal.Context) -> Hashable:
    traps = frozenset(signal for signal, on in context.traps.items() if on)
    limits = (context.prec, context.Emin, context.Emax, context.capitals, context.clamp)
    return decimal.Context, context.rounding, limits, traps


#: The context of work that belongs to no socket.
BLANK: Final = HookContext(Context())
