"""
What is shown and filtered by is what is watched: the tables that a consumer's rows depend on.

They are found in its queryset, its serializer and what it declares; the database is never asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pgobserve.dependencies.declared import declared
from pgobserve.dependencies.dry_run import brief, no_queries, samples
from pgobserve.dependencies.gathering import Dependencies, Gathering
from pgobserve.dependencies.lookups import filtered
from pgobserve.dependencies.of_queryset import of_queryset
from pgobserve.dependencies.of_serializer import makes_fields, outline
from pgobserve.dependencies.of_serializer import of_serializer as _of_serializer
from pgobserve.dependencies.prefetched import prefetched
from pgobserve.dependencies.relations import concrete
from pgobserve.render.rendering import is_bespoke

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from django.db.models import Model, Prefetch, QuerySet
    from rest_framework.serializers import BaseSerializer

    from pgobserve.dependencies.relations import Dependency
    from pgobserve.generics import GenericAsyncAPIConsumer

    #: An instance, or a class that is made an instance of if need be.
    AnySerializer = BaseSerializer[Any] | type[BaseSerializer[Any]]

__all__ = [
    "Dependencies",
    "check",
    "declares_of",
    "makes_serializers",
    "model_of_consumer",
    "of",
    "of_consumer",
    "of_queryset",
    "of_serializer",
    "outline",
    "serializer_of",
    "shown",
]

_shown: WeakKeyDictionary[type, dict[Hashable, Dependencies]] = WeakKeyDictionary()


def of_serializer(
    model: type[Model],
    serializer: AnySerializer,
    prefetches: Iterable[str | Prefetch[Any]] = (),
) -> Dependencies:
    """
    Return what a serializer shows of other tables than its model's.

    Args:
        model: Of the instances that it is given.
        serializer: An instance, or a class.
        prefetches: The queryset's ``_prefetch_related_lookups``: related rows may be chosen by them,
            and shown by the name of a ``to_attr``.
    """
    return _look(model, serializer, dict(prefetched(prefetches)), frozenset())


def of(
    consumer_class: type, queryset: QuerySet[Any], serializer: AnySerializer | None
) -> Dependencies:
    """
    Return what the rows of a consumer's queryset depend on, as its serializer shows them.

    Equal results are the same object, and what was found about a serializer's class is kept.

    Args:
        consumer_class: Its ``observe_related`` says what more and what less is watched.
        queryset: As it is read.
        serializer: An instance, or a class; None if the rows are not shown.

    Raises:
        ConfigurationError: ``observe_related`` names what is not there.
    """
    chosen = of_queryset(queryset)
    shown = _shown_by(consumer_class, queryset, serializer)
    if not shown:
        return chosen
    return Gathering(chosen, shown).made() if chosen else shown


def shown(
    consumer_class: type, queryset: QuerySet[Any], serializer: AnySerializer | None
) -> Dependencies:
    """
    Return what the rows of a consumer's queryset show of other tables.

    Unlike :func:`of` it leaves out what only decides which rows there are.

    Args:
        consumer_class: Its ``observe_related`` says what more and what less is shown.
        queryset: As it is read.
        serializer: An instance, or a class; None if the rows are not shown.

    Raises:
        ConfigurationError: ``observe_related`` names what is not there.
    """
    if serializer is None:
        return Dependencies()
    query = queryset.query
    if query.annotation_select or query.extra_select:
        return of(consumer_class, queryset, serializer)
    return _shown_by(consumer_class, queryset, serializer)


def _shown_by(
    consumer_class: type, queryset: Any, serializer: AnySerializer | None
) -> Dependencies:
    entries = getattr(consumer_class, "observe_related", ())
    if entries is None:
        return Dependencies()
    model = concrete(queryset.model)
    cls = serializer if isinstance(serializer, type) else type(serializer)
    names = frozenset(queryset.query.annotations) | frozenset(queryset.query.extra)
    lookups = queryset._prefetch_related_lookups
    own = prefetched(lookups) if lookups else ()
    declares: Any = declares_of(consumer_class)
    key = (model, declares, names, own, outline(serializer))
    kept = _shown.setdefault(cls, {})
    found = kept.get(key)
    if found is None:
        declares = declared(model, declares, consumer_class.__name__)
        gathered = Gathering()
        if serializer is not None:
            gathered.include(_look(model, serializer, dict(own), names, declares.removed))
        gathered.add(declares.added)
        found = kept[key] = gathered.made()
    return found


def makes_serializers(consumer: GenericAsyncAPIConsumer) -> bool:
    """Tell whether what is shown to a consumer's client may differ from what its class tells."""
    return is_bespoke(consumer) or makes_fields(consumer.serializer_class)


def serializer_of(
    consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any]
) -> tuple[Any, AnySerializer]:
    """
    Return the class of a consumer's serializer, and what tells what it shows.

    That is an instance, as this client has it, where the class alone does not tell: the consumer makes
    serializers by itself, or they make their fields by themselves.
    """
    cls: Any = None
    if not is_bespoke(consumer):
        cls = consumer.get_serializer_class(**kwargs)
        if not makes_fields(cls):
            return cls, cls
    try:
        made = consumer.get_serializer(dict(kwargs))
    except Exception:  # noqa: BLE001 (the project's code, which may want a row)
        cls = cls or consumer.get_serializer_class(**kwargs)
        return cls, cls
    return cls or type(made), made


def declares_of(consumer_class: type) -> Hashable:
    """Return what a class says of its rows; another class may show the same in the same way."""
    entries = getattr(consumer_class, "observe_related", ())
    return tuple(entries) if isinstance(entries, list | tuple | set | frozenset) else entries


def _look(
    model: type[Model], serializer: AnySerializer, own: Any, names: Any, removed: Any = ()
) -> Dependencies:
    with no_queries():
        try:
            made = serializer() if isinstance(serializer, type) else serializer
        except Exception as error:  # noqa: BLE001 (the project's code)
            name = getattr(serializer, "__name__", serializer)
            return _unresolved(f"{name} could not be tried ({brief(error)})")
        return _of_serializer(concrete(model), made, own, names, removed)


def _unresolved(what: str) -> Dependencies:
    found = Gathering()
    found.add_unresolved(f"{what}: what it reads of other tables can't be seen.")
    return found.made()


def of_consumer(consumer_class: type) -> Dependencies:
    """
    Return what a consumer class depends on, as far as can be told without a client.

    Methods that choose the queryset or the serializer are tried for an anonymous and for an unknown
    user, with queries forbidden.

    Raises:
        ConfigurationError: ``observe_related`` names what is not there.
    """
    found = Gathering()
    model = None
    for queryset, serializer in samples(consumer_class, found.add_unresolved):
        found.include(of(consumer_class, queryset, serializer))
        if model is None:
            model = queryset.model
            found.add(_filtered(consumer_class, queryset, found))
    return found.made()


def _filtered(consumer_class: Any, queryset: Any, found: Gathering) -> list[Dependency]:
    try:
        with no_queries():
            return list(filtered(consumer_class, queryset, found.add_unresolved))
    except Exception as error:  # noqa: BLE001 (the project's code)
        found.add_unresolved(
            f"The filters of {consumer_class.__name__} could not be tried ({brief(error)}): what "
            "clients may filter by can't be seen."
        )
        return []


def model_of_consumer(consumer_class: Any) -> type[Model] | None:
    """Return the model of a consumer's rows, as far as it is declared."""
    # Either may be a property, which tells nothing before there is a client.
    queryset = getattr(consumer_class, "queryset", None)
    meta = getattr(getattr(consumer_class, "serializer_class", None), "Meta", None)
    for each in (queryset, meta):
        model: Any = getattr(each, "model", None)
        if isinstance(model, type):
            return model
    return None


def check(consumer_class: type) -> None:
    """
    Check what a consumer declares.

    Raises:
        ConfigurationError: ``observe_related`` names what is not there.
    """
    entries = getattr(consumer_class, "observe_related", None)
    model = model_of_consumer(consumer_class)
    if entries is not None and model is not None:
        declared(model, entries, consumer_class.__name__)
