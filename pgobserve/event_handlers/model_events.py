"""
Observers of models: a method of a consumer is called for each row that is created, changed or
deleted, whoever wrote it.

They stand on the outbox, so that no event is missed. Nothing is connected to Django's signals:
loading and saving instances costs what it costs without observers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgobserve.event_handlers import dispatch
from pgobserve.event_handlers.event_tables import EventTables, sources_of
from pgobserve.event_handlers.observer_base import BaseObserver
from pgobserve.install.consumer_registry import observe_events
from pgobserve.outbox.event import EventAction
from pgobserve.sql.keys import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from django.db.models import Model
    from rest_framework.serializers import BaseSerializer

    from pgobserve.consumers import AsyncAPIConsumer
    from pgobserve.event_handlers.observer_base import Handler

__all__ = ["EventAction", "ModelObserver", "model_observer"]


class ModelObserver(BaseObserver):
    """
    What a method becomes that is decorated with :func:`model_observer`.

    Args:
        func: The method: called once for each event, subscribed consumer and group.
        model_cls: The model.
        partition: Sets observers apart that would otherwise be the same.
        serializer_class: What handlers are told about a row; its primary key by default.
        many_to_many: A change of a many-to-many field's rows is an update, too.
    """

    #: See :data:`pgobserve._consumer.settled_requests.MARKER`.
    _answers_settled = True

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

    # Decorators; the others are those of the base

    def reset(self, func: Handler) -> ModelObserver:
        """
        Let ``func(self, observer, subscribing_request_ids, group, reason, **kwargs)`` handle a reset.

        It is called when events may be missing: the table was truncated, or the process could not
        read the outbox for longer than it is kept. ``self`` is the consumer. Without one each
        request id gets a frame with the action ``reset`` and the status 205.
        """
        self._reset = func
        return self

    # Subscribing

    async def subscribe(
        self, consumer: AsyncAPIConsumer, *args: Any, request_id: Any = None, **kwargs: Any
    ) -> list[str]:
        """
        Subscribe a consumer to what is committed from now on; see :meth:`BaseObserver.subscribe`.

        Raises:
            NotObserved: The table's triggers don't write to the outbox.
            FeedDown: The database can't be reached.
        """
        groups = list(self.group_names_for_consumer(consumer, *args, **kwargs))
        await dispatch.join(self, consumer, groups, request_id)
        return groups

    async def unsubscribe(
        self, consumer: AsyncAPIConsumer, *args: Any, request_id: Any = None, **kwargs: Any
    ) -> list[str]:
        """Undo what ``subscribe`` did with that request id, or everything without one."""
        groups = list(self.group_names_for_consumer(consumer, *args, **kwargs))
        dispatch.leave(self, consumer, groups, request_id)
        return groups

    def _ids_to_tell(self, consumer: AsyncAPIConsumer, group: str) -> list[Any]:
        return dispatch.ids_to_tell(self, consumer, group)

    # From an event to messages; all of this runs in a thread, once for all sockets

    @property
    def model_label(self) -> str:
        """The model, as it is written in the name of the default group."""
        return self.model_cls._meta.label_lower.replace("_", ".")

    def group_names(self, *args: Any, **kwargs: Any) -> Iterable[str]:
        """Yield the groups where nothing was said about them: one for all events."""
        yield f"{self._stable_observer_id}-{self.message_type}-model-{self.model_label}"

    def messages(
        self, old: Model | None, new: Model | None, wanted: Collection[str]
    ) -> Iterator[dict[str, Any]]:
        """
        Yield what an event means for groups: ``delete`` for those that the row left, ``update`` for
        those in which it was and is, ``create`` for those that it entered, in this order.

        Args:
            old: The row before; None if it was created.
            new: The row after; None if it was deleted.
            wanted: The groups in which somebody is; for others nothing is serialized.
        """
        before, after = self._groups_of(old), self._groups_of(new)
        instance = new if new is not None else old
        by_action = (
            (EventAction.DELETE, [group for group in before if group not in after]),
            (EventAction.UPDATE, [group for group in before if group in after]),
            (EventAction.CREATE, [group for group in after if group not in before]),
        )
        for action, groups in by_action:
            told = [group for group in groups if group in wanted]
            if told and instance is not None:
                message = self.serialize(instance, action)
                for group in told:
                    yield {**message, "group": group}

    def serialize(self, instance: Model, action: EventAction, **kwargs: Any) -> dict[str, Any]:
        """Return the message about a row, without its group."""
        body: Any
        if self._serializer is not None:
            body = self._serializer(self, instance, action, **kwargs)
        elif self._serializer_class is not None:
            body = self._serializer_class(instance).data
        else:
            body = {"pk": shown(instance.pk)}
        return {"type": self.message_type, "body": body, "action": action.value}

    def _groups_of(self, instance: Model | None) -> list[str]:
        if instance is None:
            return []
        return list(dict.fromkeys(self.group_names_for_signal(instance=instance)))

    @property
    def sources(self) -> EventTables:
        """The tables whose changes are events of the model."""
        return sources_of(self.model_cls, many_to_many=self._many_to_many)

    @property
    def evented_models(self) -> tuple[type[Model], ...]:
        """The models whose tables must write to the outbox."""
        return self.sources.models

    # Names of DCRF that users call

    def post_save_receiver(self, instance: Model, created: bool, **kwargs: Any) -> None:
        """Do nothing: DCRF's users call it for rows written in bulk, and triggers saw those."""

    def post_delete_receiver(self, instance: Model, **kwargs: Any) -> None:
        """Do nothing; see :meth:`post_save_receiver`."""

    # What becomes of a socket's subscription when events may be missing

    async def tell_reset(self, consumer: AsyncAPIConsumer, group: str, reason: str) -> None:
        """Tell one consumer that events of a group may be missing."""
        ids = self._ids_to_tell(consumer, group)
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
    Let a method of a consumer be called when a row of a model is created, changed or deleted.

    It is called with the message, and by keyword with ``action`` (``create``, ``update`` or
    ``delete``), ``observer``, ``message_type``, ``group`` and ``subscribing_request_ids``.

    Args:
        model: The model.
        serializer_class: What the message is; ``{"pk": …}`` by default.
        many_to_many: A change of a many-to-many field's rows is an update, too.
        **kwargs: ``partition`` sets observers apart that would otherwise be the same.

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
