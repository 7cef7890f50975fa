"""What consumers derive from to let clients subscribe to rows; the names are DCRF's."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from channels.db import database_sync_to_async
from django.http import Http404
from rest_framework import status
from rest_framework.exceptions import ValidationError

from pgobserve.decorators import action
from pgobserve.feed.keys import key_of, to_key
from pgobserve.mixins import RetrieveModelMixin
from pgobserve.observer.registry import observe
from pgobserve.observer.resume import parse_token
from pgobserve.observer.subscription import Begun, Subscriptions, encode_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable

    from django.db.models import Model

    from pgobserve.feed.snapshot import Snapshot
    from pgobserve.generics import GenericAsyncAPIConsumer as _Base
else:
    _Base = object

__all__ = ["ObserverConsumerMixin", "ObserverModelInstanceMixin"]


class ObserverConsumerMixin(_Base):
    """
    A consumer with subscriptions: what they have to tell waits while a message is answered, so
    that a reply goes before the events that it caused, and they end with the socket.
    """

    _subscribed: Subscriptions | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        observe(cls)

    @classmethod
    def observed_models(cls) -> list[type[Model]]:
        """Return the models whose tables need triggers for this consumer, as far as can be told."""
        return []

    @property
    def subscriptions(self) -> Subscriptions:
        """The subscriptions of this socket."""
        if self._subscribed is None:
            self._subscribed = Subscriptions(self)
        return self._subscribed

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Hold the feed's frames until the message at hand is answered."""
        subscriptions = self.subscriptions
        subscriptions.hold()
        try:
            async with super().serving():
                yield
        finally:
            subscriptions.release()

    async def closed(self) -> None:
        """End all subscriptions."""
        if self._subscribed is not None:
            await self._subscribed.aclose()
        await super().closed()


class ObserverModelInstanceMixin(ObserverConsumerMixin, RetrieveModelMixin):
    """
    Lets clients subscribe to single rows: the actions ``retrieve``, ``subscribe_instance`` and
    ``unsubscribe_instance``.

    The row may be written by whatever writes to PostgreSQL. A subscriber gets ``update``, and
    ``delete`` when the row goes or leaves what he may see, and ``create`` when it comes (back).

    Example:
        >>> class UserConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
        ...     queryset = User.objects.all()
        ...     serializer_class = UserSerializer
    """

    @classmethod
    def observed_models(cls) -> list[type[Model]]:
        """Return the model of the queryset, or else of the serializer."""
        model = _declared_model(cls)
        return [] if model is None else [model]

    @action()
    async def subscribe_instance(
        self, request_id: Any = None, snapshot: Any = False, token: Any = None, **kwargs: Any
    ) -> tuple[Any, int] | None:
        """
        Subscribe to a row.

        Args:
            request_id: The client's name for the subscription; required.
            snapshot: Reply with the row and a token, read in one snapshot with the subscription.
            token: From an earlier frame: what changed since is sent at once.
            **kwargs: ``pk``, or what ``lookup_field`` says; all of it reaches ``get_queryset``.

        Returns:
            ``(None, 201)``, or None when the reply has a token and was sent here.
        """
        if request_id is None:
            raise ValidationError(['"request_id" is required.'])
        since = _token(token)
        hooks = {**kwargs, "request_id": request_id, "action": "update"}
        model, key, lookup = await self._locate(kwargs, request_id)
        tokens = snapshot is True or since is not None
        begun = await self.subscriptions.begin(
            model, key, lookup, hooks, token=since, wants_token=tokens
        )
        if not tokens:
            return None, status.HTTP_201_CREATED
        await self._reply_with_token(request_id, begun, with_data=snapshot is True)
        return None

    @action()
    async def unsubscribe_instance(self, request_id: Any = None, **kwargs: Any) -> tuple[None, int]:
        """End a subscription to a row, without ``request_id`` all of them; also when it is gone."""
        name = self.lookup_url_kwarg or self.lookup_field
        self.subscriptions.end(self._normal(_required(kwargs, name)), request_id)
        return None, status.HTTP_204_NO_CONTENT

    async def _locate(
        self, kwargs: dict[str, Any], request_id: Any
    ) -> tuple[type[Model], Hashable, Any]:
        """Return the model, the key and the client's name of the row that a message names."""
        name = self.lookup_url_kwarg or self.lookup_field
        lookup = _required(kwargs, name)
        model = _declared_model(type(self))
        if self.lookup_field == "pk" and model is not None:
            return model, _key(model, lookup), self._normal(lookup)
        instance = await database_sync_to_async(self.get_object)(
            **{**kwargs, "request_id": request_id, "action": "subscribe_instance"}
        )
        return type(instance), key_of(instance), self._normal(lookup)

    def _normal(self, lookup: Any) -> Any:
        """Return one name for a row that can be named by ``1`` and by ``"1"``."""
        model = _declared_model(type(self))
        if self.lookup_field != "pk" or model is None:
            return lookup
        try:
            return repr(to_key(model, lookup))
        except ValueError:
            return encode_name(lookup)

    async def _reply_with_token(self, request_id: Any, begun: Begun, *, with_data: bool) -> None:
        data = await self.decode_json(begun.view.body) if with_data and begun.view.body else None
        await self.send_json(
            {
                "errors": [],
                "data": data,
                "action": "subscribe_instance",
                "response_status": status.HTTP_201_CREATED,
                "request_id": request_id,
                "token": str(begun.snapshot),
            }
        )


def _declared_model(cls: type) -> type[Model] | None:
    queryset = getattr(cls, "queryset", None)
    if queryset is not None:
        model: type[Model] = queryset.model
        return model
    meta = getattr(getattr(cls, "serializer_class", None), "Meta", None)
    return getattr(meta, "model", None)


def _required(kwargs: dict[str, Any], name: str) -> Any:
    if name not in kwargs:
        raise ValidationError([f'"{name}" is required.'])
    return kwargs[name]


def _key(model: type[Model], value: Any) -> Hashable:
    try:
        return to_key(model, value)
    except ValueError:
        raise Http404 from None


def _token(value: Any) -> Snapshot | None:
    if value is None:
        return None
    try:
        return parse_token(value)
    except ValueError:
        raise ValidationError(['"token" is not a token that this server gave.']) from None
