"""From an instance to the JSON that each audience may see of it."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from django.db import InterfaceError, OperationalError
from rest_framework.serializers import BaseSerializer, Serializer
from rest_framework.utils.encoders import JSONEncoder

from pgobserve.hub.load_requests import FAILED
from pgobserve.hub.send_queue import Refusal, View
from pgobserve.render.own_hooks import has_own
from pgobserve.render.row_names import value_of
from pgobserve.render.tracking_context import RecordingContext
from pgobserve.sql.keys import key_of, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from django.db.models import Model

    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.render.own_hooks import Consumer

_encode = JSONEncoder(separators=(",", ":"), allow_nan=False).encode

#: The annotation that holds a row's version, for consumers that read it by themselves.
VERSION = "pgobserve_version"

#: What ``get_serializer_context`` returns where it isn't overridden.
DEFAULT_KEYS = frozenset({"scope", "consumer"})


class RenderingFailed(Exception):
    """A row can't be shown to anybody; the cause says why."""


class Renderer:
    """
    Renders with one serializer class, once for all audiences where that is right.

    Args:
        serializer_class: The class.
        bespoke: The consumer overrides how serializers are made, so each is made by the consumer.
        keys: Keys of the context, None if the consumer overrides ``get_serializer_context``.
        turns: Only one thread at a time may make a serializer and use it.

    Attributes:
        leaves_out: Rows that are read may be left out.
        failed: The answer where a serializer fails.
    """

    leaves_out: ClassVar[bool] = False
    failed: ClassVar[Refusal] = FAILED

    def __init__(
        self,
        serializer_class: type[BaseSerializer[Any]],
        *,
        bespoke: bool,
        keys: frozenset[str] | None,
        turns: bool = False,
    ) -> None:
        self._turns: AbstractContextManager[Any] = threading.RLock() if turns else nullcontext()
        self._class = serializer_class
        self._bespoke = bespoke
        self._keys = keys
        # A serializer is not safe in several threads. Building one costs more than using it.
        self._idle = threading.local()

    def render(
        self, instance: Model, consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any]
    ) -> tuple[View, bool]:
        """
        Render for one audience.

        Args:
            instance: The row.
            consumer: The socket's consumer.
            kwargs: The keys of the message that it subscribed with.

        Returns:
            The view, and whether it serves every other audience as well.

        Raises:
            RenderingFailed: The serializer raised, without having looked at the audience: so it
                does for all.
            Exception: What it raised for this audience.
        """
        if self._bespoke:
            with self._turns:
                made = consumer.get_serializer(instance=instance, action_kwargs=dict(kwargs))
                return View.of(_encode(made.data)), False
        serializer, context = self._serializer(
            instance, lambda: consumer.get_serializer_context(**kwargs)
        )
        try:
            view = View.of(_encode(self._represent(serializer, instance)))
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            if context.looked:
                raise
            raise RenderingFailed from error
        if not context.looked and not self._has_own_data:
            serializer.instance = None
            self._idle.pair = serializer, context
        return view, not context.looked

    @cached_property
    def _has_own_data(self) -> bool:
        own: bool = self._class.data.fget is not Serializer.data.fget  # type: ignore[attr-defined]
        return own

    def _serializer(
        self, instance: Model, build: Callable[[], Mapping[str, Any]]
    ) -> tuple[BaseSerializer[Any], RecordingContext]:
        """
        Return a serializer with a context of this audience, one that was used before if there is.

        It keeps its context object, for it may have handed it on. What has looked once may have
        kept what it saw, in its fields, say: it is used no more.
        """
        pair: tuple[BaseSerializer[Any], RecordingContext] | None
        pair, self._idle.pair = getattr(self._idle, "pair", None), None
        if pair is None:
            context = RecordingContext(build, self._keys)
            return self._class(instance=instance, context=context), context
        serializer, context = pair
        context.aim(build)
        serializer.instance = instance
        return serializer, context

    def _represent(self, serializer: BaseSerializer[Any], instance: Model) -> Any:
        return serializer.data if self._has_own_data else serializer.to_representation(instance)


class PresenceRenderer:
    """
    Renders nothing but the fact that a row is there, and in which version.

    For consumers that read and show rows by themselves: each version reaches them.
    """

    leaves_out: ClassVar[bool] = False
    failed: ClassVar[Refusal] = FAILED

    def render(self, instance: Any, consumer: object, kwargs: object) -> tuple[View, bool]:
        """Return a view that serves all."""
        return View("null", str(getattr(instance, VERSION)).encode()), True


class KeyRenderer:
    """
    Renders a row's key, for lists of keys.

    Args:
        named_by: The field that names rows to clients; None for the primary key.
    """

    leaves_out: ClassVar[bool] = False
    failed: ClassVar[Refusal] = FAILED

    def __init__(self, named_by: str | None = None) -> None:
        self._named_by = named_by

    def render(self, instance: Any, consumer: object, kwargs: object) -> tuple[View, bool]:
        """Return a view that serves all."""
        if self._named_by is None:
            return View.of(_encode({"pk": shown(key_of(instance))})), True
        return View.of(_encode({self._named_by: value_of(instance, self._named_by)})), True


def encode(value: Any) -> str:
    """Return JSON as frames have it: what DRF can render, and no NaN."""
    return _encode(value)


def is_bespoke(consumer: Consumer) -> bool:
    """Tell whether a consumer, or a class, has a way of its own to make serializers."""
    return has_own(consumer, "get_serializer")


def context_keys(consumer: Consumer) -> frozenset[str] | None:
    """Return the keys of a consumer's serializer contexts, None if it has a hook for them."""
    return None if has_own(consumer, "get_serializer_context") else DEFAULT_KEYS
