"""
A project that subclasses everything, as its author's type checker sees it.

``tests/unit/test_typing.py`` checks it with mypy, strictly; nothing here is run. What a decorator of
an observer is put on has a name of its own: DCRF's habit to use the observer's again works as well,
but type checkers call it a redefinition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.contrib.auth import user_logged_in
from django.contrib.auth.models import User
from django.db.models import Model, QuerySet
from rest_framework import serializers
from rest_framework.permissions import IsAdminUser

from pgobserve import mixins
from pgobserve.consumers import AsyncAPIConsumer, DjangoViewAsConsumer, view_as_consumer
from pgobserve.decorators import action, detached
from pgobserve.event_handlers.model_events import EventAction, ModelObserver
from pgobserve.event_handlers.observer_base import BaseObserver
from pgobserve.event_handlers.signal_observer import Observer
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer import model_observer, observer
from pgobserve.observer.generics import (
    ObserverConsumerMixin,
    ObserverModelInstanceMixin,
    ObserverModelListMixin,
)
from pgobserve.pagination import WebsocketLimitOffsetPagination
from pgobserve.permissions import AllowAny, BasePermission, IsAuthenticated


class UserSerializer(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ["id", "username"]


class IsStaff(BasePermission):
    async def has_permission(
        self, scope: Mapping[str, Any], consumer: AsyncAPIConsumer, action: str, **kwargs: Any
    ) -> bool:
        return bool(scope["user"].is_staff)


class Pages(WebsocketLimitOffsetPagination):
    max_limit = 10


class Plain(AsyncAPIConsumer):
    permission_classes = [IsStaff | IsAuthenticated & ~AllowAny, IsAdminUser]

    @action()
    def ping(self, **kwargs: Any) -> tuple[Any, int]:
        return {"pong": True}, 200

    @action(detached=True, name="pong")
    async def pong(self, request_id: Any, **kwargs: Any) -> None:
        await self.reply("pong", data={}, request_id=request_id)

    @detached
    async def later(self, seconds: float) -> None:
        await self.send_json({"seconds": seconds})

    async def handle_exception(self, exc: Exception, action: str | None, request_id: Any) -> None:
        await super().handle_exception(exc, action=action, request_id=request_id)

    @observer(user_logged_in)
    async def on_login(self, message: Any, **kwargs: Any) -> None:
        await self.send_json(message)

    @on_login.serializer
    def login_shown(self, signal: Any, user: User, **kwargs: Any) -> Any:
        return {"user": user.pk}


class Users(
    ObserverModelListMixin,
    ObserverModelInstanceMixin,
    mixins.CreateModelMixin,
    mixins.PaginatedModelListMixin,
    mixins.UpdateModelMixin,
    mixins.PatchModelMixin,
    mixins.DeleteModelMixin,
    GenericAsyncAPIConsumer,
):
    queryset = User.objects.all()
    serializer_class = UserSerializer
    pagination_class = Pages
    lookup_field = "username"
    observer_many_to_many_relationships = True
    observe_related = ["groups", "-user_permissions"]
    max_rows = 100

    def get_queryset(self, **kwargs: Any) -> QuerySet[User]:
        return User.objects.filter(is_active=True)

    def filter_queryset(self, queryset: QuerySet[Any], **kwargs: Any) -> QuerySet[Any]:
        return queryset.filter(is_staff=False)

    def perform_create(self, serializer: Any, **kwargs: Any) -> None:
        serializer.save(is_active=True)

    async def handle_observed_action(self, action: str, group: Any = None, **kwargs: Any) -> None:
        await super().handle_observed_action(action, group, **kwargs)


class Streamed(mixins.StreamedPaginatedListMixin, GenericAsyncAPIConsumer):
    queryset = User.objects.all()
    serializer_class = UserSerializer


class Own(ModelObserver):
    def serialize(self, instance: Model, action: EventAction, **kwargs: Any) -> dict[str, Any]:
        return {**super().serialize(instance, action, **kwargs), "own": True}

    async def __call__(
        self, message: dict[str, Any], consumer: AsyncAPIConsumer | None = None, **kwargs: Any
    ) -> Any:
        return await super().__call__(message, consumer, **kwargs)


async def _told(consumer: Any, message: Any, **kwargs: Any) -> None:
    await consumer.send_json(message)


class Activity(ObserverConsumerMixin, GenericAsyncAPIConsumer):
    queryset = User.objects.all()
    serializer_class = UserSerializer
    own = Own(_told, User)

    @model_observer(User, serializer_class=UserSerializer, many_to_many=True)
    async def changed(
        self,
        message: Any,
        action: str,
        subscribing_request_ids: Sequence[Any] = (),
        **kwargs: Any,
    ) -> None:
        for request_id in subscribing_request_ids:
            await self.reply(action, data=message, request_id=request_id)

    @changed.serializer
    def change_shown(self, instance: User, action: EventAction, **kwargs: Any) -> Any:
        return {"name": instance.username, "action": action.value}

    @changed.groups_for_signal
    def groups_of_change(self, instance: User, **kwargs: Any) -> Iterator[str]:
        yield f"staff-{instance.is_staff}"

    @changed.groups_for_consumer
    def groups_to_watch(self, staff: bool, **kwargs: Any) -> Iterator[str]:
        yield f"staff-{staff}"

    @changed.reset
    async def missed(self, reason: str, **kwargs: Any) -> None:
        await self.reply("reset", data={"reason": reason})

    @action()
    async def watch(self, staff: bool, request_id: Any, **kwargs: Any) -> tuple[Any, int]:
        groups: list[str] = await self.changed.subscribe(staff, request_id=request_id)
        await Activity.own.subscribe(self, request_id=request_id)
        return groups, 201

    @action()
    async def leave(self, staff: bool, request_id: Any, **kwargs: Any) -> tuple[Any, int]:
        return await self.changed.unsubscribe(staff=staff, request_id=request_id), 204


observers: list[BaseObserver] = [Activity.changed, Plain.on_login]
model_observers: list[ModelObserver] = [Activity.changed]
signal_observers: list[Observer] = [Plain.on_login]
viewed: type[DjangoViewAsConsumer] = DjangoViewAsConsumer
application = view_as_consumer(lambda request: None, {"list": "GET"})
