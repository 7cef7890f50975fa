"""Renders rows of lists whose list serializer may leave rows out."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from django.db.models import QuerySet
from rest_framework.serializers import BaseSerializer, ListSerializer

from pgobserve.errors import ConfigurationError
from pgobserve.hub.outcome import ABSENT, UNREAD, Refusal, View
from pgobserve.render.own_hooks import stored, writes
from pgobserve.render.rendering import Renderer, is_bespoke, view_of
from pgobserve.render.tracking_context import TrackingContext

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from django.db.models import Model

    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.render.rendering import KeyRenderer

#: Attributes of a list serializer that do not affect which rows it shows.
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
    Renders each row as a list of one, as ``list`` would; the list serializer may leave it out.

    Each rendering makes a new serializer, because a list serializer may keep what it has read.

    Args:
        queryset: The list's queryset.
        shows: Renders a row that is on the list; by default the serializer.
        **options: As for :class:`Renderer`.
    """

    leaves_out: ClassVar[bool] = True
    # After an error nothing says whether the list would have the row.
    failed: ClassVar[Refusal] = UNREAD

    def __init__(
        self,
        serializer_class: type[BaseSerializer[Any]],
        queryset: QuerySet[Any],
        *,
        shows: KeyRenderer | None = None,
        **options: Any,
    ) -> None:
        super().__init__(serializer_class, **options)
        self._queryset = queryset
        self._shows = shows

    def render(
        self, instance: Model, consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any]
    ) -> tuple[View, bool]:
        """Render for one subscriber; the view of a row that the list leaves out is :data:`ABSENT`."""
        if self._bespoke:
            with self._turns:
                made = consumer.get_serializer(
                    instance=self._alone(instance), many=True, action_kwargs=dict(kwargs)
                )
                return self._view(instance, made, consumer), False
        context = TrackingContext(lambda: consumer.get_serializer_context(**kwargs), self._keys)

        def render() -> View:
            own: Any = self._class(instance=self._alone(instance), many=True, context=context)
            return self._view(instance, own, consumer)

        return view_of(context, render), not context.accessed

    def _alone(self, instance: Model) -> QuerySet[Any]:
        """Return the list's queryset, already evaluated, with this row alone."""
        alone: Any = QuerySet.filter(self._queryset, pk=instance.pk)
        alone._result_cache, alone._prefetch_done = [instance], True
        cls: Any = type(alone)
        alone.__class__ = _unsliced(cls)
        return alone  # type: ignore[no-any-return]

    def _view(self, instance: Model, made: Any, consumer: GenericAsyncAPIConsumer) -> View:
        rows = made.data
        # A join may repeat a row.
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
        return self._show(rows[0], instance)


@lru_cache(maxsize=1024)
def _unsliced(cls: Any) -> Any:
    """Return a subclass that refuses indexes and slices, because each row would be the first."""

    def refuse(self: object, index: object) -> NoReturn:
        raise ConfigurationError(
            "A list serializer took rows by their position. The feed renders each row of a list on "
            "its own, so every row is the first: let to_representation() decide row by row."
        )

    return type(cls.__name__, (cls,), {"__module__": cls.__module__, "__getitem__": refuse})


def may_leave_out(consumer: GenericAsyncAPIConsumer, serializer_class: Any) -> bool:
    """
    Return whether ``list`` may show fewer rows than the queryset has; in doubt it may.

    A consumer's own ``get_serializer`` may treat lists differently.
    """
    return (
        lists_otherwise(serializer_class)
        or is_bespoke(consumer)
        or writes(stored(consumer, "get_serializer_class")[0])
    )


def lists_otherwise(serializer_class: Any) -> bool:
    """Return whether a class with ``many=True`` may do more than show each row on its own."""
    if serializer_class is None:
        return False
    if not isinstance(serializer_class, type) or not issubclass(serializer_class, BaseSerializer):
        return True
    many_init: Any = serializer_class.many_init
    if (
        getattr(many_init, "__func__", None) is not BaseSerializer.many_init.__func__  # type: ignore[attr-defined]
        or serializer_class.__new__ is not BaseSerializer.__new__
        or type(serializer_class).__call__ is not type.__call__
    ):
        return True
    meta = getattr(serializer_class, "Meta", None)
    return not _is_harmless(getattr(meta, "list_serializer_class", ListSerializer))


def _is_harmless(cls: Any) -> bool:
    if not isinstance(cls, type) or not issubclass(cls, ListSerializer):
        return False
    inherited = frozenset(ListSerializer.__mro__)
    bases = (base for base in cls.__mro__ if base not in inherited)
    own: list[Hashable] = [name for base in bases for name in vars(base)]
    return _HARMLESS.issuperset(own) and type(cls).__call__ is type.__call__
