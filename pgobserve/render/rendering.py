"""Renders an instance to JSON, once for all subscribers where that is right."""

from __future__ import annotations

import json
import threading
from contextlib import nullcontext
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from asgiref.sync import async_to_sync
from django.db import InterfaceError, OperationalError
from rest_framework.serializers import BaseSerializer, Serializer
from rest_framework.utils.encoders import JSONEncoder

from pgobserve.consumers import AsyncAPIConsumer
from pgobserve.hub.identity import digest_of, key_text
from pgobserve.hub.load_requests import FAILED
from pgobserve.hub.outcome import Refusal, View
from pgobserve.render.own_hooks import has_own, stored
from pgobserve.render.tracking_context import TrackingContext
from pgobserve.sql.keys import as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from django.db.models import Model

    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.render.own_hooks import Consumer

#: Returns a value as the JSON of frames, with DRF's types and without NaN.
encode = JSONEncoder(separators=(",", ":"), allow_nan=False).encode

#: The annotation with a row's version, which counts as a part of the row that is not shown.
VERSION = "pgobserve_version"

#: Keys of the default serializer context.
DEFAULT_KEYS = frozenset({"scope", "consumer"})


class RenderingFailed(Exception):
    """The serializer fails for every subscriber; see the cause."""


class Renderer:
    """
    Renders with one serializer class.

    Args:
        bespoke: The consumer's own method makes each serializer.
        keys: Keys of the context; None if the consumer overrides ``get_serializer_context``.
        turns: Only one thread at a time may make and use a serializer.
        encoder: Returns the serializer's output as JSON.

    Attributes:
        leaves_out: Whether a row that was read may be left out.
        failed: The view where a serializer fails.
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
        encoder: Callable[[Any], str] = encode,
    ) -> None:
        self._encode = encoder
        self._turns: AbstractContextManager[Any] = threading.RLock() if turns else nullcontext()
        self._class = serializer_class
        self._bespoke = bespoke
        self._keys = keys
        # For each thread, because serializers are not thread-safe. Building costs more than using.
        self._idle = threading.local()

    def render(
        self, instance: Model, consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any]
    ) -> tuple[View, bool]:
        """
        Render a row for one subscriber.

        Args:
            kwargs: The arguments of the subscribing message.

        Returns:
            The view, and whether it serves every other subscriber as well.

        Raises:
            Exception: As :func:`view_of`.
        """
        if self._bespoke:
            with self._turns:
                made = consumer.get_serializer(instance=instance, action_kwargs=dict(kwargs))
                return self._show(made.data, instance), False
        serializer, context = self._serializer(
            instance, lambda: consumer.get_serializer_context(**kwargs)
        )
        own, represent = self._has_own_data, serializer.to_representation
        view = view_of(
            context, lambda: self._show(serializer.data if own else represent(instance), instance)
        )
        if not context.accessed and not self._has_own_data:
            serializer.instance = None
            self._idle.pair = serializer, context
        return view, not context.accessed

    def _show(self, data: Any, instance: Any) -> View:
        body, version = self._encode(data), getattr(instance, VERSION, None)
        return View.of(body) if version is None else View(body, digest_of(body + version))

    @cached_property
    def _has_own_data(self) -> bool:
        own: bool = self._class.data.fget is not Serializer.data.fget  # type: ignore[attr-defined]
        return own

    def _serializer(
        self, instance: Model, build: Callable[[], Mapping[str, Any]]
    ) -> tuple[BaseSerializer[Any], TrackingContext]:
        """
        Return a serializer with this subscriber's context, reusing this thread's idle one.

        A reused serializer keeps its context object, which its fields may hold. A serializer that has
        read its context is not reused, because it may have kept what it read.
        """
        pair: tuple[BaseSerializer[Any], TrackingContext] | None
        pair, self._idle.pair = getattr(self._idle, "pair", None), None
        if pair is None:
            context = TrackingContext(build, self._keys)
            return self._class(instance=instance, context=context), context
        serializer, context = pair
        context.reset(build)
        serializer.instance = instance
        return serializer, context


def view_of(context: TrackingContext, render: Callable[[], View]) -> View:
    """
    Call a function that renders with a context.

    Raises:
        RenderingFailed: It raised before it read the context, so it fails for every subscriber.
        Exception: Its error for this subscriber, or a lost connection.
    """
    try:
        return render()
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        if context.accessed:
            raise
        raise RenderingFailed from error


class _ForAll:
    """Renders the same for every subscriber, without a serializer."""

    leaves_out: ClassVar[bool] = False
    failed: ClassVar[Refusal] = FAILED


class VersionRenderer(_ForAll):
    """Renders only a row's version, for consumers that read and show rows themselves."""

    def render(self, instance: Any, consumer: object, kwargs: object) -> tuple[View, bool]:
        """Return the view; it serves every subscriber."""
        return View("null", str(getattr(instance, VERSION)).encode()), True


class KeyRenderer(_ForAll):
    """Renders a row's key, for lists of keys; ``named_by`` is its field if not the primary key."""

    def __init__(self, named_by: str | None = None) -> None:
        self._named_by = named_by

    def render(self, instance: Any, consumer: object, kwargs: object) -> tuple[View, bool]:
        """Return the view; it serves every subscriber."""
        if self._named_by is None:
            return View.of(encode({"pk": as_json(instance.pk)})), True
        return View.of(encode({self._named_by: value_of(instance, self._named_by)})), True


def encoder_of(consumer: GenericAsyncAPIConsumer) -> Callable[[Any], str]:
    """Return what encodes rows: a consumer's own ``encode_json``, or :func:`encode`."""
    if stored(consumer, "encode_json")[0] is stored(AsyncAPIConsumer, "encode_json")[0]:
        return encode
    return _own_encoder(type(consumer))


@lru_cache(maxsize=256)
def _own_encoder(cls: type[GenericAsyncAPIConsumer]) -> Callable[[Any], str]:
    def own(content: Any) -> str:
        return encode(json.loads(async_to_sync(cls.encode_json)(content)))

    # It also encodes each frame. What it adds around the whole must not be around the row, too.
    probe = {"probe": [1]}
    return own if own(probe) == encode(probe) else encode


def is_bespoke(consumer: Consumer) -> bool:
    """Return whether a consumer, or a class, overrides ``get_serializer``."""
    return has_own(consumer, "get_serializer")


def context_keys(consumer: Consumer) -> frozenset[str] | None:
    """Return the keys of a consumer's serializer context; None if it overrides the context."""
    return None if has_own(consumer, "get_serializer_context") else DEFAULT_KEYS


def lookup_of(consumer: GenericAsyncAPIConsumer, model: type[Model]) -> str | None:
    """Return the field that names a consumer's rows; None if that is the primary key."""
    key: Any = model._meta.pk
    name = consumer.lookup_field
    return None if name in ("pk", key.name, key.attname) else name


def value_of(instance: Model, lookup: str) -> Any:
    """Return the value of an instance's lookup; None if a related row is missing."""
    value: Any = instance
    for name in lookup.split("__"):
        value = getattr(value, name, None)
    return value


def name_of(instance: Model, lookup: str) -> str:
    """Return the text by which frames name an instance."""
    return key_text(value_of(instance, lookup))
