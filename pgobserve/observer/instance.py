"""The mixin for subscriptions to single rows; its names are DCRF's."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Self

from channels.db import database_sync_to_async
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.db import connections, router
from django.http import Http404
from rest_framework import status
from rest_framework.exceptions import (
    APIException,
    NotFound,
    PermissionDenied,
    ValidationError,
)

from pgobserve._consumer.json_socket import SocketHooks
from pgobserve._consumer.permission_call import reading
from pgobserve.cohorts.subscription_context import context_of
from pgobserve.decorators import action
from pgobserve.dependencies.relations import throughs_of
from pgobserve.hub.identity import etag_of
from pgobserve.mixins import RetrieveModelMixin
from pgobserve.observer.consumer import ObserverConsumerMixin, declared_model
from pgobserve.observer.handlers import RowHandler
from pgobserve.render.own_hooks import has_own
from pgobserve.render.rendering import encode, lookup_of
from pgobserve.sql.keys import identity_for, key_of
from pgobserve.subscribe.subscription_set import encode_name

if TYPE_CHECKING:
    from django.db.models import Model

    from pgobserve.dependencies.gathering import Dependencies
    from pgobserve.hub.outcome import View
    from pgobserve.hub.subscriptions import RowSubscription


logger = logging.getLogger(__name__)

#: What a method raises for a row that the client may not see.
_HIDING: Final = (Http404, NotFound, PermissionDenied, DjangoPermissionDenied)
_REFUSING: Final = (*_HIDING, APIException)


# The hooks come last, so that DCRF's mixins may follow this one, as in DCRF.
class ObserverModelInstanceMixin(ObserverConsumerMixin, RetrieveModelMixin, SocketHooks):
    """
    Lets clients subscribe to single rows: the actions ``retrieve``, ``subscribe_instance`` and
    ``unsubscribe_instance``.

    Any program may write the row in PostgreSQL. A subscriber receives ``update`` when the row changes,
    ``delete`` when it is deleted or hidden from the subscriber, and ``create`` when it appears (again).

    Attributes:
        observer_many_to_many_relationships: Whether changes of all of the model's many-to-many fields
            count as changes of the row. Those of fields that the serializer shows always do.

    Example:
        >>> class UserConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
        ...     queryset = User.objects.all()
        ...     serializer_class = UserSerializer
    """

    observer_many_to_many_relationships: bool = False

    @classmethod
    def observed_models(cls) -> list[type[Model]]:
        """Return the model of the queryset, or else of the serializer, and its many-to-many models."""
        model = declared_model(cls)
        if model is None:
            return []
        if not cls.observer_many_to_many_relationships:
            return [model]
        return [model, *(through.model for through in throughs_of(model))]

    @classmethod
    def observed_dependencies(cls) -> Dependencies:
        """Return what rows depend on, including many-to-many tables if they are observed."""
        found, model = super().observed_dependencies(), declared_model(cls)
        if model is None or not cls.observer_many_to_many_relationships:
            return found
        paths = (through.path_from(model) for through in throughs_of(model))
        return replace(found, paths=tuple(dict.fromkeys((*found.paths, *paths))))

    @action()
    async def subscribe_instance(
        self, request_id: Any = None, snapshot: Any = False, etag: Any = None, **kwargs: Any
    ) -> tuple[Any, int] | None:
        """
        Subscribe to a row.

        Args:
            request_id: The client's name for the subscription; required.
            snapshot: Reply with the row and its etag, read in one snapshot with the subscription.
            etag: The state that a returning client holds. The row is sent if it differs. With
                ``snapshot`` the reply has the row anyway.
            **kwargs: ``pk``, or the argument that ``lookup_field`` names; all reach ``get_queryset``.

        Returns:
            ``(None, 201)``, or None when the reply has an etag and was sent here.
        """
        if request_id is None:
            raise ValidationError(['"request_id" is required.'])
        if not isinstance(snapshot, bool):
            raise ValidationError(['"snapshot" must be true or false.'])
        if etag is not None and not isinstance(etag, str):
            raise ValidationError(['"etag" must be a string.'])
        hooks = {**kwargs, "request_id": request_id, "action": "update"}
        returning = etag is not None and snapshot is False
        located = await self._locate(kwargs, request_id, returning=returning)
        if located is None:
            return await self._reply_absent(kwargs, request_id, holds_copy=bool(etag))
        model, key, lookup = located
        view = await self.subscriptions.rows.start(
            model,
            key,
            lookup,
            hooks,
            etag=etag if returning else None,
            wants_etag=snapshot is True or etag is not None,
            custom_delivery=self._has_custom_delivery(),
        )
        try:
            if snapshot is True:
                await self._reply_with_row(view, {**kwargs, "request_id": request_id})
                return None
        except Exception as error:
            # The client receives an error, and must not have a subscription with it.
            self.subscriptions.rows.end(lookup, request_id)
            raise _as_missing(error) from error
        return None, status.HTTP_201_CREATED

    @action()
    async def unsubscribe_instance(self, request_id: Any = None, **kwargs: Any) -> tuple[None, int]:
        """End a subscription to a row, or without ``request_id`` all of them; also of a deleted row."""
        name = self.lookup_url_kwarg or self.lookup_field
        self.subscriptions.rows.end(self._normal(_required(kwargs, name)), request_id)
        if request_id is not None:
            self._leave_groups(request_id)
        await self.subscriptions.writer.settle()
        return None, status.HTTP_204_NO_CONTENT

    # A class may override how a row is read or shown. Its methods are then called for each change and
    # socket, as in DCRF: slow, but its own checks are made.

    @RowHandler
    async def handle_instance_change(
        self, message: dict[str, Any], group: Any = None, action: Any = None, **kwargs: Any
    ) -> None:
        """Handle a change of a row; called for classes that override this or a method that it calls."""
        await self.handle_observed_action(action=action, group=group, **message)

    async def handle_observed_action(self, action: str, group: Any = None, **kwargs: Any) -> None:
        """
        Reply to the subscription with what :meth:`retrieve` returns.

        Args:
            action: ``create``, ``update`` or ``delete``.
            group: Names the subscription, see :meth:`_requests_for`.
            **kwargs: The message: ``pk``.
        """
        group = group if isinstance(group, _Group) else _Group(group or "")
        hidden = group.context.hidden
        for request_id in self._requests_for(group):
            group.context.hidden = hidden  # as for the request ids before
            try:
                if action == "delete":
                    await self._send_gone(group, request_id, kwargs)
                    continue
                with reading():
                    await self.check_permissions(action, **kwargs)
                await self._send_row(group, request_id, action, kwargs)
            except Exception as error:  # noqa: BLE001 (answered and logged there)
                await self._failed(group, error, action, request_id)

    async def _failed(self, group: Any, error: Exception, action: str, request_id: Any) -> None:
        """Reply with an error, but not for a hidden row: a client must not notice its changes."""
        if not group.context.hidden:
            await self.handle_exception(error, action=action, request_id=request_id)
        elif not isinstance(error, _REFUSING):
            about = group.context.about(group.watch.key)
            logger.error(
                "%s failed for %s %s of database %r, which is hidden from the client; no frame is sent.",
                *(about["consumer"], about["model"], about["key"], about["alias"]),
                exc_info=error,
                extra=about,
            )

    async def deliver(self, watch: RowSubscription, kind: str) -> None:
        """Pass a change to the class's own methods."""
        group = _Group(f"pgobserve-{watch.key}-{context_of(watch).request_id_text}", watch)
        await self.handle_instance_change(self._message(watch), group=group, action=kind)

    def _message(self, watch: RowSubscription) -> dict[str, Any]:
        """Return the arguments that identify the row for :meth:`retrieve`."""
        if context_of(watch).named_by is None:
            return {"pk": context_of(watch).shown(watch.key)}
        name = self.lookup_url_kwarg or self.lookup_field
        return {name: json.loads(context_of(watch).lookup)}

    def _requests_for(self, group: Any) -> set[Any] | list[Any]:  # type: ignore[override]
        """Return the request ids of a group, or the one of a subscription; without a group, all."""
        request_id = group.watch.request_id if isinstance(group, _Group) and group.watch else group
        if request_id is group or request_id in self.group_requests:
            return super()._requests_for(request_id)
        return [request_id]

    async def _send_row(
        self, group: Any, request_id: Any, action: str, kwargs: dict[str, Any]
    ) -> None:
        try:
            response = await self.retrieve(request_id=request_id, action=action, **kwargs)
        except _HIDING:
            await self._send_gone(group, request_id, kwargs)
            return
        context = group.context
        action, context.hidden = "create" if context.hidden else action, False
        if not isinstance(response, tuple):
            return
        data, code = response
        if not context.wants_etag:
            await self.reply(action=action, data=data, status=code, request_id=request_id)
            return
        etag, (held, context.held) = etag_of(encode(data)), (context.held, None)
        if etag != held:
            await self._send_with_etag(action, data, code, request_id, etag)

    async def _send_with_etag(
        self, action: str, data: Any, code: int, request_id: Any, etag: str
    ) -> None:
        frame = {"errors": [], "data": data, "action": action, "response_status": code}
        await self.send_json({**frame, "request_id": request_id, "etag": etag})

    async def _send_gone(self, group: Any, request_id: Any, kwargs: dict[str, Any]) -> None:
        """Report once that the row is deleted or hidden."""
        if not group.context.hidden:
            group.context.hidden = True
            await self.reply(
                action="delete",
                data=kwargs,
                status=status.HTTP_204_NO_CONTENT,
                request_id=request_id,
            )

    def _has_custom_delivery(self) -> bool:
        ours = ("retrieve", "handle_instance_change", "handle_observed_action")
        return has_own(self, *ours, ours=ObserverModelInstanceMixin) or has_own(self, "get_object")

    async def _locate(
        self, kwargs: dict[str, Any], request_id: Any, *, returning: bool
    ) -> tuple[type[Model], str, Any] | None:
        """
        Return the model, the key and the client's name of the row that a message names.

        None for a returning client if no row has the name any more: the key is not known then.
        """
        name = self.lookup_url_kwarg or self.lookup_field
        lookup = _required(kwargs, name)
        model = declared_model(type(self))
        if self.lookup_field == "pk" and model is not None and not self._has_custom_delivery():
            return model, _key(model, lookup), self._normal(lookup)
        hooks = {**kwargs, "request_id": request_id, "action": "subscribe_instance"}
        try:
            instance = await database_sync_to_async(self._found)(hooks)
        except Exception as error:
            if not returning or not isinstance(error, _HIDING):
                raise _as_missing(error) from error
            if model is None or lookup_of(self, model) is not None:
                return None
            return model, _key(model, lookup), self._normal(lookup)
        return type(instance), key_of(instance, _connection(type(instance))), self._normal(lookup)

    async def _reply_absent(
        self, kwargs: dict[str, Any], request_id: Any, *, holds_copy: bool
    ) -> tuple[None, int] | None:
        """Reply to a returning client that no row has the name that it sent; nothing is left to follow."""
        name = self.lookup_url_kwarg or self.lookup_field
        lookup, created = kwargs[name], status.HTTP_201_CREATED
        self.subscriptions.rows.end(self._normal(lookup), request_id)
        if not holds_copy:
            return None, created
        await self.subscriptions.writer.settle()
        await self.reply("subscribe_instance", status=created, request_id=request_id)
        data = {name if self._has_custom_delivery() else self.lookup_field: lookup}
        gone = status.HTTP_204_NO_CONTENT
        await self.reply("delete", data=data, status=gone, request_id=request_id)
        return None

    def _found(self, kwargs: dict[str, Any]) -> Any:
        with self._in_database_session(kwargs):
            return self.get_object(**kwargs)

    def _normal(self, lookup: Any) -> Any:
        """Return one name for a row that clients may name ``1`` or ``"1"``."""
        model = declared_model(type(self))
        if self.lookup_field != "pk" or model is None:
            return lookup
        try:
            return identity_for(model, lookup, _connection(model))
        except ValueError:
            return encode_name(lookup)

    async def _reply_with_row(self, view: View, kwargs: dict[str, Any]) -> None:
        if self._has_custom_delivery():
            response = await self.retrieve(**{**kwargs, "action": "retrieve"})
            data = response[0] if isinstance(response, tuple) else None
            etag = etag_of(encode(data))
        else:
            data = await self.decode_json(view.body) if view.body else None
            etag = view.etag
        created = status.HTTP_201_CREATED
        await self._send_with_etag("subscribe_instance", data, created, kwargs["request_id"], etag)


class _Group(str):
    """
    Names a subscription where DCRF has the name of a channel-layer group.

    Attributes:
        watch: The subscription; None for a group of a project's own.
        context: The subscription's context, or what stands for it.
    """

    __slots__ = ("context", "watch")

    watch: RowSubscription | None
    context: Any

    def __new__(cls, name: str, watch: RowSubscription | None = None) -> Self:
        self = super().__new__(cls, name)
        self.watch = watch
        own = SimpleNamespace(hidden=False, wants_etag=False)
        self.context = own if watch is None else context_of(watch)
        return self


def _as_missing(error: Exception) -> Exception:
    """Return the error for a row; a hidden row has the same one as an absent row."""
    return Http404() if isinstance(error, _HIDING) else error


def _required(kwargs: dict[str, Any], name: str) -> Any:
    if name not in kwargs:
        raise ValidationError([f'"{name}" is required.'])
    return kwargs[name]


def _connection(model: type[Model]) -> Any:
    """Return a connection that knows how values are written; it runs no query."""
    return connections[router.db_for_write(model)]


def _key(model: type[Model], value: Any) -> str:
    try:
        return identity_for(model, value, _connection(model))
    except ValueError:
        raise Http404 from None
