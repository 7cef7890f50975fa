"""The base of consumers that serve a model."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, cast

from asgiref.sync import async_to_sync
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import (
    DEFAULT_DB_ALIAS,
    DataError,
    InterfaceError,
    OperationalError,
    connections,
    router,
)
from django.http import Http404
from rest_framework.exceptions import APIException, ValidationError

from pgobserve._consumer.arguments import refuse_reserved
from pgobserve.consumers import AsyncAPIConsumer
from pgobserve.database.session_settings import SessionSettings, locally
from pgobserve.logs import fields
from pgobserve.permissions import decide_object, instances, judges_objects
from pgobserve.scope_utils import drf_request
from pgobserve.settings import from_setting
from pgobserve.workers.occupation import contained

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from django.db.models import QuerySet
    from rest_framework.serializers import BaseSerializer

logger = logging.getLogger(__name__)

#: What a lookup raises when the value can't be a key of the table.
_NO_KEY = (TypeError, ValueError, OverflowError, DjangoValidationError, DataError)


#: Actions that only show a row.
READING: Final = frozenset({"retrieve", "subscribe_instance"})


class GenericAsyncAPIConsumer(AsyncAPIConsumer):
    """
    A consumer with a queryset and a serializer.

    All methods get the keys of the client's message as keyword arguments, ``action`` and
    ``request_id`` among them.

    Attributes:
        queryset: What ``get_queryset`` returns a fresh copy of.
        serializer_class: What ``get_serializer_class`` returns.
        lookup_field: The field that ``get_object`` looks up.
        lookup_url_kwarg: The key of the message that holds its value; ``lookup_field`` by default.
        filter_backends: DRF filter backends, fed from the message's ``query``.
    """

    queryset: QuerySet[Any] | None = None
    serializer_class: type[BaseSerializer[Any]] | None = None
    lookup_field: str = "pk"
    lookup_url_kwarg: str | None = None
    filter_backends: Sequence[type[Any]] = from_setting("DEFAULT_FILTER_BACKENDS")

    def get_queryset(self, **kwargs: Any) -> QuerySet[Any]:
        """Return the rows that this client may see, in this action."""
        if self.queryset is None:
            raise AssertionError(
                f"{type(self).__name__} has no queryset: set `queryset` or override `get_queryset()`."
            )
        # A queryset keeps its results: each action needs one of its own.
        return self.queryset.all()

    def filter_queryset(self, queryset: QuerySet[Any], **kwargs: Any) -> QuerySet[Any]:
        """Return ``queryset`` as the filter backends leave it, given the message's ``query``."""
        backends = self.filter_backends
        if not backends:
            return queryset
        request = drf_request(
            self.scope, kwargs.get("action") or "list", query=kwargs.get("query") or {}
        )
        for backend in backends:
            queryset = backend().filter_queryset(request, queryset, self)
        return queryset

    def database_session(self, **kwargs: Any) -> Mapping[str, Any]:
        """
        Return the settings of the database session in which this client's rows are read.

        Names and values as PostgreSQL's ``set_config()`` takes them: what a policy of row-level
        security looks at, ``search_path``, ``role``. They hold while the other hooks run, and the
        serializer and object permissions, and are undone after that. Subscriptions with equal
        settings share. A synchronous action runs in a transaction, in which they hold.

        Example:
            >>> def database_session(self, **kwargs):
            ...     return {"app.tenant": self.scope["tenant"]}
        """
        return {}

    @contextmanager
    def _in_database_session(self, kwargs: Mapping[str, Any]) -> Iterator[None]:
        """Have the settings hold for an action, in the present thread."""
        settings = self.database_session(**kwargs)
        if not settings:
            yield
            return
        model = self._model()
        read = DEFAULT_DB_ALIAS if model is None else router.db_for_read(model)
        with ExitStack() as stack:
            for alias in {read, self._write_alias()}:
                stack.enter_context(locally(connections[alias], SessionSettings.of(settings)))
            yield

    @classmethod
    def _model(cls) -> Any:
        """Return the model of the rows, as far as the class says it."""
        meta = getattr(cls.serializer_class, "Meta", None)
        return getattr(cls.queryset, "model", None) or getattr(meta, "model", None)

    def _write_alias(self) -> str:
        """Return the database alias where the rows are written, and read by the feed."""
        model = self._model()
        return DEFAULT_DB_ALIAS if model is None else router.db_for_write(model)

    def get_object(self, **kwargs: Any) -> Any:
        """
        Return the row that the message names.

        Raises:
            ValidationError: It names none.
            Http404: There is no such row in the queryset, or a permission hides it: it may not even
                be retrieved.
            PermissionDenied: A permission refuses this action on a row that may be retrieved.
        """
        refuse_reserved(kwargs, "queryset", "instance", "obj")
        name = self.lookup_url_kwarg or self.lookup_field
        if name not in kwargs:
            raise ValidationError([f'"{name}" is required.'])
        queryset = self.filter_queryset(self.get_queryset(**kwargs), **kwargs)
        instance = _look_up(queryset, self.lookup_field, kwargs[name])
        try:
            self.check_object_permissions(instance, **kwargs)
        except (OperationalError, InterfaceError):
            raise
        except BaseException as error:
            contained(error)
            if isinstance(error, KeyboardInterrupt) or self._may_retrieve(instance, kwargs):
                raise
            if not isinstance(error, (APIException, PermissionDenied, Http404)):
                about = fields(consumer=type(self), model=type(instance), key=instance.pk)
                logger.exception(
                    "A permission of %s failed for %s %s; the client receives 404.",
                    *(about["consumer"], about["model"], about["key"]),
                    extra=about,
                )
            raise Http404 from None
        return instance

    def _may_retrieve(self, instance: Any, kwargs: Mapping[str, Any]) -> bool:
        """Tell whether a row that was refused may be seen: one that may not must not be noticed."""
        if kwargs.get("action", "retrieve") in READING:
            return False
        try:
            self.check_object_permissions(instance, **{**kwargs, "action": "retrieve"})
        except BaseException as error:  # noqa: BLE001 (whatever it is)
            contained(error)
            return False
        return True

    def check_object_permissions(
        self, obj: Any, action: str = "retrieve", request_id: Any = None, **kwargs: Any
    ) -> None:
        """
        Refuse an action on a row that a permission refuses.

        Raises:
            PermissionDenied: With the permission's ``message`` and ``code``, if it has any.
        """
        for permission in self._object_permissions(action, kwargs):
            given = decide_object(permission, self.scope, self, action, obj, kwargs)
            if not (async_to_sync(_awaited)(given) if isawaitable(given) else given):
                self._refused(permission)

    def _object_permissions(self, action: str, kwargs: Mapping[str, Any]) -> list[Any]:
        if type(self).get_permissions is AsyncAPIConsumer.get_permissions:
            permissions = instances(self.permission_classes)
        else:
            permissions = async_to_sync(self.get_permissions)(action=action, **kwargs)
        return [permission for permission in permissions if judges_objects(permission)]

    def get_serializer(
        self, action_kwargs: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any
    ) -> BaseSerializer[Any]:
        """
        Return a serializer for input or output.

        Args:
            action_kwargs: The keys of the message, for the class and the context.
            *args: For the serializer.
            **kwargs: For the serializer.
        """
        given = action_kwargs or {}
        kwargs["context"] = self.get_serializer_context(**given) | kwargs.get("context", {})
        return self.get_serializer_class(**given)(*args, **kwargs)

    def get_serializer_class(self, **kwargs: Any) -> type[BaseSerializer[Any]]:
        """Return the class of the serializer."""
        if self.serializer_class is None:
            raise AssertionError(
                f"{type(self).__name__} has no serializer: set `serializer_class` or override "
                "`get_serializer_class()`."
            )
        return self.serializer_class

    def get_serializer_context(self, **kwargs: Any) -> dict[str, Any]:
        """Return what serializers find in their ``context``."""
        return {"scope": self.scope, "consumer": self}


def _look_up(queryset: QuerySet[Any], field: str, value: Any) -> Any:
    # True would be found as 1, and 1.5 too.
    if value is None or isinstance(value, (bool, dict)):
        raise Http404
    if isinstance(value, float) and not value.is_integer():
        value = str(value)
    try:
        return queryset.get(**{field: value})
    except (ObjectDoesNotExist, *_NO_KEY):
        raise Http404 from None


async def _awaited(given: Any) -> bool:
    return cast("bool", await given)
