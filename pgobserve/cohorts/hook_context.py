"""
The Python context in which a subscription's hooks run: the socket's, as its actions have it.

A project may keep the tenant, the user or the language in context variables. ``sync_to_async`` takes
those along into its thread, so that ``list`` and ``retrieve`` see them. The loader's threads do the
same here, each piece of work in a copy of its own: what it activates ends with it.
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

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

Result = TypeVar("Result")

#: Types whose values are the same if they are equal.
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

#: What asgiref keeps in a context for itself.
_OF_ASGIREF: Final = frozenset(
    variable
    for owner in (SyncToAsync, AsyncToSync)
    for variable in vars(owner).values()
    if isinstance(variable, ContextVar)
)

#: A value that says nothing about what a hook returns.
_NOTHING: Final = object()


class HookContext:
    """
    A copy of a context, for hooks that run in other threads, or later.

    Args:
        context: What to copy.
    """

    __slots__ = ("_context", "_key")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._key: Hashable = None

    @classmethod
    def current(cls) -> HookContext:
        """Return that of the code that calls this."""
        return cls(copy_context())

    @property
    def key(self) -> Hashable:
        """
        What a hook may see of it: contexts with equal keys may share what was made in either.

        The language, the time zone and the URL configuration count as they are in effect, and each
        context variable of the project by its value.
        """
        if self._key is None:
            self._key = self.here().run(_key_of_current)
        return self._key

    @property
    def common(self) -> bool:
        """Whether no context variable of the project's sets it apart."""
        key: Any = self.key
        return not key[-1]

    def here(self) -> Context:
        """Return a copy that is entered in the present thread."""
        context = Context()
        context.run(_enter, self._context)
        return context

    def left_by(self, here: Context, before: Context) -> HookContext:
        """
        Return a context as hooks left it; this one if they activated nothing that counts.

        Args:
            here: From :meth:`here`; the hooks ran in it.
            before: A copy of it from before.
        """
        if len(here) == len(before) and all(before.get(each) is here[each] for each in here):
            return self
        left = HookContext(here.copy())
        return self if left.key == self.key else left

    def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """Call a function within a copy, in the present thread."""
        return self.here().run(function, *args)


def _enter(context: Context) -> None:
    thread = threading.get_ident()
    for variable, value in context.items():
        # Newer Locals of asgiref, Django's language among them, belong to one thread.
        moves = _is_local(value) and value.thread_id != thread
        variable.set(type(value)(thread, value.data) if moves else value)


def _is_local(value: Any) -> bool:
    return type(value).__module__ == "asgiref.local"


def _key_of_current() -> Hashable:
    ignored = _OF_ASGIREF | _of_django()
    names = frozenset(conf.get().IGNORED_CONTEXT_VARIABLES)
    values = frozenset(
        (variable, found)
        for variable, value in copy_context().items()
        if variable not in ignored and variable.name not in names
        if (found := _key_of(value)) is not _NOTHING
    )
    zone = timezone.get_current_timezone()
    return translation.get_language(), str(zone), zone, get_urlconf(), get_script_prefix(), values


@cache
def _of_django() -> frozenset[ContextVar[Any]]:
    """Return the variables of what is compared as it is in effect."""

    def activate() -> None:
        translation.activate("en")
        timezone.activate(datetime.UTC)
        set_urlconf("urls")
        set_script_prefix("/")

    context = Context()
    context.run(activate)
    return frozenset(context)


def _key_of(value: Any) -> Hashable:
    """Return what tells a value from another; of what may change, each object is another."""
    # Not isinstance(), which would evaluate a lazy object, such as the user that Channels puts into a scope.
    kind = type(value)
    if _is_local(value):
        parts = ((name, _key_of(each)) for name, each in value.data.items())
        told = frozenset(part for part in parts if part[1] is not _NOTHING)
        return told or _NOTHING
    if issubclass(kind, BaseCache | BaseDatabaseWrapper) or kind.__module__.startswith("asgiref."):
        return _NOTHING
    if issubclass(kind, decimal.Context):
        return _of_arithmetic(value)
    if issubclass(kind, Model):
        return kind, frozenset(_of_model(value))
    if kind in (tuple, frozenset):
        return kind, kind(_key_of(each) for each in value)
    return (kind, value) if issubclass(kind, _PLAIN) and _says_all(value) else _SameContext(value)


def _says_all(value: Any) -> bool:
    """Tell whether equal values are the same: one of a subclass may have attributes."""
    return isinstance(value, enum.Enum | datetime.tzinfo) or not getattr(value, "__dict__", None)


def _of_model(instance: Model) -> Iterator[tuple[str, Hashable]]:
    for name, value in vars(instance).items():
        if name != "_state":
            yield name, _key_of(value)


def _of_arithmetic(context: decimal.Context) -> Hashable:
    """Return what decides how numbers are rounded; whoever calculates has such a context."""
    found = _arithmetic(context)
    return _NOTHING if found == _arithmetic(decimal.DefaultContext) else found


def _arithmetic(context: decimal.Context) -> Hashable:
    traps = frozenset(signal for signal, on in context.traps.items() if on)
    limits = (context.prec, context.Emin, context.Emax, context.capitals, context.clamp)
    return decimal.Context, context.rounding, limits, traps


class _SameContext:
    """Equal to itself alone, whatever the object calls equal; keeps the object."""

    __slots__ = ("_object",)

    def __init__(self, value: object) -> None:
        self._object = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameContext) and self._object is other._object

    def __hash__(self) -> int:
        return id(self._object)


#: Of what runs for no socket in particular.
BLANK: Final = HookContext(Context())
