"""Rows as ``list`` shows them where its serializer may leave some out."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from django.db import InterfaceError, OperationalError
from django.db.models import QuerySet
from rest_framework.serializers import BaseSerializer, ListSerializer

from pgobserve.errors import ConfigurationError
from pgobserve.hub.send_queue import (
    ABSENT,
    UNREAD,
    Refusal,
    View,
)
from pgobserve.render.own_hooks import found, writes
from pgobserve.render.rendering import (
    Renderer,
    RenderingFailed,
    encode,
    is_bespoke,
)
from pgobserve.render.tracking_context import RecordingContext

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from django.db.models import Model

    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.render.rendering import KeyRenderer

#: What a list serializer may define without any effect on which rows it shows.
_HARMLESS: Final = frozenset(
    {
        *("create", "update", "save", "validate", "is_valid", "errors", "get_value", "get_initial"),
        *("run_validation", "run_child_validation", "to_internal_value", "default_error_messages"),
        *("__module__", "__doc__", "__qualname__", "__firstlineno__", "__static_attributes__"),
        *("__annotations__", "__annotate__", "__annotate_func__", "__parameters__"),
        *("__orig_bases__", "__type_params__"),
    }
)


class ListedRenderer(Renderer):
    """
    Renders a row as the only one of a list, as ``list`` would: the list serializer may leave it out.

    Each rendering makes a serializer of its own, for a list serializer may keep what it has seen.

    Args:
        serializer_class: The class of the serializer.
        queryset: Of the list.
        bespoke: As for :class:`Renderer`.
        keys: As for :class:`Renderer`.
        shows: Shows a row that is on the list; None if the serializer does.
        turns: As for :class:`Renderer`.
    """

    leaves_out: ClassVar[bool] = True
    # Whether the client may see the row is not known.
    failed: ClassVar[Refusal] = UNREAD

    def __init__(
        self,
        serializer_class: type[BaseSerializer[Any]],
        queryset: QuerySet[Any],
        *,
        bespoke: bool,
        keys: frozenset[str] | None,
        shows: KeyRenderer | None = None,
        turns: bool = False,
    ) -> None:
        super().__init__(serializer_class, bespoke=bespoke, keys=keys, turns=turns)
        self._queryset = queryset
        self._shows = shows

    def render(
        self, instance: Model, consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any]
    ) -> tuple[View, bool]:
        """Render for one audience; the view is :data:`ABSENT` where the list has no such row."""
        made: Any
        if self._bespoke:
            with self._turns:
                made = consumer.get_serializer(
                    instance=self._alone(instance), many=True, action_kwargs=dict(kwargs)
                )
                return self._view(instance, made, consumer), False
        context = RecordingContext(lambda: consumer.get_serializer_context(**kwargs), self._keys)
        try:
            made = self._class(instance=self._alone(instance), many=True, context=context)
            view = self._view(instance, made, consumer)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            if context.looked:
                raise
            raise RenderingFailed from error
        return view, not context.looked

    def _alone(self, instance: Model) -> QuerySet[Any]:
        """Return the list's queryset with that row alone, which is read already."""
        alone: Any = QuerySet.filter(self._queryset, pk=instance.pk)
        alone._result_cache, alone._prefetch_done = [instance], True
        cls: Any = type(alone)
        alone.__class__ = _unsliced(cls)
        return alone  # type: ignore[no-any-return]

    def _view(self, instance: Model, made: Any, consumer: GenericAsyncAPIConsumer) -> View:
        rows = made.data
        # A join may find a row several times.
        if not isinstance(rows, list | tuple) or any(row != rows[0] for row in rows[1:]):
            raise ConfigurationError(
                f"{type(made).__name__}, made by {type(consumer).__name__} with many=True, did not "
                "turn a list of one row into a list of one row or none. The feed renders each row "
                "of a list on its own: let to_representation() decide row by row, or choose the "
                "rows in get_queryset()."
            )
        if not rows:
            return ABSENT
        if self._shows is not None:
            return self._shows.render(instance, consumer, None)[0]
        return View.of(encode(rows[0]))


@lru_cache(maxsize=1024)
def _unsliced(cls: Any) -> Any:
    """Return a subclass of a queryset's class that refuses slices: each row would be the first."""

    def refuse(self: object, index: object) -> NoReturn:
        raise ConfigurationError(
            "A list serializer took rows by their position. The feed renders each row of a list on "
            "its own, so every row is the first: let to_representation() decide row by row."
        )

    return type(cls.__name__, (cls,), {"__module__": cls.__module__, "__getitem__": refuse})


def may_leave_out(consumer: GenericAsyncAPIConsumer, serializer_class: Any) -> bool:
    """
    Tell whether ``list`` may show fewer rows than the queryset has; when in doubt, it may.

    Args:
        consumer: It may make serializers by itself, of lists otherwise than of rows.
        serializer_class: The class that it has chosen; None if it has none.
    """
    return (
        lists_otherwise(serializer_class)
        or is_bespoke(consumer)
        or writes(found(consumer, "get_serializer_class")[0])
    )


def lists_otherwise(serializer_class: Any) -> bool:
    """Tell whether a class with ``many=True`` may do more than to show each row by itself."""
    if serializer_class is None:
        return False
    if not isinstance(serializer_class, type) or not issubclass(serializer_class, BaseSerializer):
        return True
    makes: Any = serializer_class.many_init
    if (
        getattr(makes, "__func__", None) is not BaseSerializer.many_init.__func__  # type: ignore[attr-defined]
        or serializer_class.__new__ is not BaseSerializer.__new__
        or type(serializer_class).__call__ is not type.__call__
    ):
        return True
    meta = getattr(serializer_class, "Meta", None)
    return not _is_harmless(getattr(meta, "list_serializer_class", ListSerializer))


def _is_harmless(cls: Any) -> bool:
    if not isinstance(cls, type) or not issubclass(cls, ListSerializer):
        return False
    usual = frozenset(ListSerializer.__mro__)
    own: list[Hashable] = [name for base in cls.__mro__ if base not in usual for name in vars(base)]
    return _HARMLESS.issuperset(own) and type(cls).__call__ is type.__call__
