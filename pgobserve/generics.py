"""The base of consumers for a model."""

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

from pgobserve._consumer.calls import refuse_reserved
from pgobserve._consumer.permission_call import PermissionCase, check
from pgobserve._former_names import resolver
from pgobserve.consumers import AsyncAPIConsumer
from pgobserve.database.tracked_session import SessionSettings, locally
from pgobserve.logs import fields
from pgobserve.permissions import checks_objects, instances
from pgobserve.scope_utils import drf_request
from pgobserve.settings import from_setting
from pgobserve.workers.occupation import contained

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from django.db.models import QuerySet
    from rest_framework.serializers import BaseSerializer

logger = logging.getLogger(__name__)

#: Errors of a lookup with a value that can't be a key of the table.
_NO_KEY = (TypeError, ValueError, OverflowError, DjangoValidationError, DataError)


#: Actions that only read a row.
READING: Final = frozenset({"retrieve", "subscribe_instance"})


class GenericAsyncAPIConsumer(AsyncAPIConsumer):
    """
    A consumer with a queryset and a serializer.

    All methods receive the keys of the client's message as keyword arguments, including ``action`` and
    ``request_id``.

    Attributes:
        queryset: The queryset that ``get_queryset`` copies.
        serializer_class: The class that ``get_serializer_class`` returns.
        lookup_field: The field by which ``get_object`` finds a row.
        lookup_url_kwarg: The message's key with the field's value; ``lookup_field`` by default.
        filter_backends: DRF filter backends, which read the message's ``query``.
    """

    queryset: QuerySet[Any] | None = None
    serializer_class: type[BaseSerializer[Any]] | None = None
    lookup_field: str = "pk"
    lookup_url_kwarg: str | None = None
    filter_backends: Sequence[type[Any]] = from_setting("DEFAULT_FILTER_BACKENDS")

    def get_queryset(self, **kwargs: Any) -> QuerySet[Any]:
        """Return the rows that this client may see in this action."""
        if self.queryset is None:
            raise AssertionError(
                f"{type(self).__name__} has no queryset: set `queryset` or override `get_queryset()`."
            )
        # A queryset caches its results, so each action needs a new one.
        return self.queryset.all()

    def filter_queryset(self, queryset: QuerySet[Any], **kwargs: Any) -> QuerySet[Any]:
        """Return ``queryset`` filtered by the filter backends, with the message's ``query``."""
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
        Return settings for the database session that reads this client's rows.

        Names and values are those of PostgreSQL's ``set_config()``: settings that row-level security reads,
        ``search_path``, ``role``. They apply while the other hooks, the serializer and the object permissions
        run, and are reset afterwards. Subscriptions with equal settings may share a query. A synchronous
        action runs in a transaction in which they apply.

        Example:
            >>> def database_session(self, **kwargs):
            ...     return {"app.tenant": self.scope["tenant"]}
        """
        return {}

    @contextmanager
    def _in_database_session(self, kwargs: Mapping[str, Any]) -> Iterator[None]:
        """Apply the settings in the block, for this thread's connections."""
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
        """Return the model of the queryset or the serializer, if the class has one."""
        meta = getattr(cls.serializer_class, "Meta", None)
        return getattr(cls.queryset, "model", None) or getattr(meta, "model", None)

    def _write_alias(self) -> str:
        """Return the alias where rows are written, which is where the feed reads them."""
        model = self._model()
        return DEFAULT_DB_ALIAS if model is None else router.db_for_write(model)

    def get_object(self, **kwargs: Any) -> Any:
        """
        Return the row that the message names.

        Raises:
            ValidationError: The message names no row.
            Http404: The queryset has no such row, or the client may not retrieve it.
            PermissionDenied: The client may retrieve the row, but not call this action on it.
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
        """Return whether the client may know of a refused row: only if it may retrieve it."""
        if kwargs.get("action", "retrieve") in READING:
            return False
        try:
            self.check_object_permissions(instance, **{**kwargs, "action": "retrieve"})
        except BaseException as error:  # noqa: BLE001 (any error refuses)
            contained(error)
            return False
        return True

    def check_object_permissions(
        self, obj: Any, action: str = "retrieve", request_id: Any = None, **kwargs: Any
    ) -> None:
        """
        Check the object permissions for an action on a row.

        Raises:
            PermissionDenied: A permission refuses; with its ``message`` and ``code``, if it has any.
        """
        case = PermissionCase(self.scope, self, action, kwargs, obj)
        for permission in self._object_permissions(action, kwargs):
            given = check(permission, "has_object_permission", case)
            if not (async_to_sync(_awaited)(given) if isawaitable(given) else given):
                self._refused(permission)

    def _object_permissions(self, action: str, kwargs: Mapping[str, Any]) -> list[Any]:
        if type(self).get_permissions is AsyncAPIConsumer.get_permissions:
            permissions = instances(self.permission_classes)
        else:
            permissions = async_to_sync(self.get_permissions)(action=action, **kwargs)
        return [permission for permission in permissions if checks_objects(permission)]

    def get_serializer(
        self, action_kwargs: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any
    ) -> BaseSerializer[Any]:
        """
        Return a serializer for input or output.

        Args:
            action_kwargs: The keys of the message, for the class and context of the serializer.
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
        """Return the serializers' ``context``."""
        return {"scope": self.scope, "consumer": self}


def _look_up(queryset: QuerySet[Any], field: str, value: Any) -> Any:
    # The ORM would take True, and 1.5, for 1.
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


__getattr__ = resolver(__name__)
