"""
Model observers: call a method of a consumer for each row that any program creates, changes or deletes.

They read the outbox, so they miss no event. They don't connect to Django's signals, so loading and saving
instances costs nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgobserve.event_handlers import dispatch
from pgobserve.event_handlers.event_tables import EventTables, sources_of
from pgobserve.event_handlers.observer_base import EventObserver
from pgobserve.install.consumer_registry import observe_events
from pgobserve.outbox.event import EventAction
from pgobserve.sql.keys import as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from django.db.models import Model
    from rest_framework.serializers import BaseSerializer

    from pgobserve.consumers import AsyncAPIConsumer
    from pgobserve.event_handlers.observer_base import Handler

__all__ = ["EventAction", "ModelObserver", "model_observer"]


class ModelObserver(EventObserver):
    """
    A method that is decorated with :func:`model_observer`.

    Args:
        func: The method, called once for each event, subscribed consumer and group.
        model_cls: The model.
        partition: Distinguishes observers that are otherwise equal.
        serializer_class: Makes the message about a row; the primary key by default.
        many_to_many: Whether changes of many-to-many fields are updates, too.
    """

    #: See :data:`pgobserve._consumer.inbox.MARKER`.
    _answers_settled = True

    #: The handler of a mixin that was bound to the model, if it is one.
    unbound: Any = None

    def __init__(
        self,
        func: Handler,
        model_cls: type[Model],
        partition: str = "*",
        serializer_class: type[BaseSerializer[Any]] | None = None,
        many_to_many: bool = False,
    ) -> None:
        super().__init__(func, partition)
        self.model_cls = model_cls
        self._serializer_class = serializer_class
        self._many_to_many = many_to_many
        self._reset: Handler | None = None
        observe_events(self)

    # Decorators beside those of the base

    def reset(self, func: Handler) -> ModelObserver:
        """
        Let ``func(self, observer, subscribing_request_ids, group, reason, **kwargs)`` handle a reset.

        A reset means that events may be missing: the table was truncated, or the process could not read
        the outbox before it was emptied. ``self`` is the consumer. Without such a handler, each request
        id receives a frame with the action ``reset`` and the status 205.
        """
        self._reset = func
        return self

    # Subscribing

    async def subscribe(
        self, consumer: AsyncAPIConsumer, *args: Any, request_id: Any = None, **kwargs: Any
    ) -> list[str]:
        """
        Subscribe a consumer to changes committed from now on; see :meth:`BaseObserver.subscribe`.

        Raises:
            NotObserved: The table's triggers don't write to the outbox.
            FeedDown: The database can't be reached.
        """
        groups = list(self.group_names_for_consumer(consumer, *args, **kwargs))
        await dispatch.join(self, consumer, groups, request_id)
        await consumer.join_groups(groups)
        return groups

    async def unsubscribe(
        self, consumer: AsyncAPIConsumer, *args: Any, request_id: Any = None, **kwargs: Any
    ) -> list[str]:
        """End the subscription with a request id; without one, all of them."""
        groups = list(self.group_names_for_consumer(consumer, *args, **kwargs))
        left = dispatch.leave(self, consumer, groups, request_id)
        for group in left:
            await consumer.remove_group(group)
        return groups

    def _delivered_ids(self, consumer: AsyncAPIConsumer, group: str) -> list[Any]:
        return dispatch.delivered_ids(self, consumer, group)

    # From an event to messages; all of this runs in a thread, once for all sockets

    @property
    def model_label(self) -> str:
        """The model, as in the name of the default group."""
        return self.model_cls._meta.label_lower.replace("_", ".")

    def group_names(self, *args: Any, **kwargs: Any) -> Iterable[str]:
        yield f"{self._stable_observer_id}-{self.message_type}-model-{self.model_label}"

    def messages(
        self, old: Model | None, new: Model | None, wanted: Collection[str]
    ) -> Iterator[dict[str, Any]]:
        """
        Yield the messages of a change: ``delete`` for groups that the row left, ``update`` for groups
        that it stayed in, ``create`` for groups that it entered, in this order.

        Args:
            old: The row before; None if it was created.
            new: The row after; None if it was deleted.
            wanted: Groups with members; for others nothing is serialized.
        """
        before, after = self._groups_of(old), self._groups_of(new)
        instance = new if new is not None else old
        by_action = (
            (EventAction.DELETE, [group for group in before if group not in after]),
            (EventAction.UPDATE, [group for group in before if group in after]),
            (EventAction.CREATE, [group for group in after if group not in before]),
        )
        for action, groups in by_action:
            receiving = [group for group in groups if group in wanted]
            if receiving and instance is not None:
                message = self.serialize(instance, action)
                for group in receiving:
                    yield {**message, "group": group}

    def serialize(self, instance: Model, action: EventAction, **kwargs: Any) -> dict[str, Any]:
        """Return the message about a row, without its group."""
        body: Any
        if self._serializer is not None:
            body = self._serializer(self, instance, action, **kwargs)
        elif self._serializer_class is not None:
            body = self._serializer_class(instance).data
        else:
            body = {"pk": as_json(instance.pk)}
        return {"type": self.message_type, "body": body, "action": action.value}

    def _groups_of(self, instance: Model | None) -> list[str]:
        if instance is None:
            return []
        return list(dict.fromkeys(self.group_names_for_signal(instance=instance)))

    @property
    def sources(self) -> EventTables:
        return sources_of(self.model_cls, many_to_many=self._many_to_many)

    @property
    def evented_models(self) -> tuple[type[Model], ...]:
        """The models whose tables must write to the outbox."""
        return self.sources.models

    # DCRF's names that projects call

    def post_save_receiver(self, instance: Model, created: bool, **kwargs: Any) -> None:
        """Do nothing: DCRF needs this call after bulk writes, which triggers record here."""

    def post_delete_receiver(self, instance: Model, **kwargs: Any) -> None:
        """Do nothing; see :meth:`post_save_receiver`."""

    def database_event(self, instance: Model, action: EventAction) -> None:
        """Do nothing; see :meth:`post_save_receiver`."""

    async def send_reset(self, consumer: AsyncAPIConsumer, group: str, reason: str) -> None:
        """Send a reset to a consumer: events of a group may be missing."""
        ids = self._delivered_ids(consumer, group)
        if self._reset is not None:
            await self._reset(
                consumer, observer=self, subscribing_request_ids=ids, group=group, reason=reason
            )
            return
        for request_id in ids or [None]:
            await consumer.reply(action="reset", status=205, request_id=request_id)


def model_observer(
    model: type[Model],
    serializer_class: type[BaseSerializer[Any]] | None = None,
    many_to_many: bool = False,
    **kwargs: Any,
) -> Callable[[Handler], ModelObserver]:
    """
    Call a method of a consumer when a row of a model is created, changed or deleted.

    The method receives the message, and by keyword ``action`` (``create``, ``update`` or ``delete``),
    ``observer``, ``message_type``, ``group`` and ``subscribing_request_ids``.

    Args:
        serializer_class: Makes the message; ``{"pk": …}`` by default.
        many_to_many: Whether changes of many-to-many fields are updates, too.
        **kwargs: ``partition`` distinguishes observers that are otherwise equal.

    Example:
        >>> class Chat(AsyncAPIConsumer):
        ...     @model_observer(Comment, serializer_class=CommentSerializer)
        ...     async def on_comment(self, message, action, subscribing_request_ids=[], **kwargs):
        ...         for request_id in subscribing_request_ids:
        ...             await self.reply(data=message, action=action, request_id=request_id)
        ...
        ...     @on_comment.groups_for_signal
        ...     def on_comment(self, instance, **kwargs):
        ...         yield f"room-{instance.room_id}"
        ...
        ...     @on_comment.groups_for_consumer
        ...     def on_comment(self, room, **kwargs):
        ...         yield f"room-{room}"
        ...
        ...     @action()
        ...     async def enter(self, room, request_id, **kwargs):
        ...         await self.on_comment.subscribe(room=room, request_id=request_id)
    """

    def decorate(func: Handler) -> ModelObserver:
        return ModelObserver(
            func, model, serializer_class=serializer_class, many_to_many=many_to_many, **kwargs
        )

    return decorate
