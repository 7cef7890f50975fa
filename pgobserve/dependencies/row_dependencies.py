"""
The tables that a consumer's rows depend on: what it shows, and what it filters by.

They follow from its queryset, its serializer and ``observe_related``, without any query.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from django.db.models import Model as DjangoModel

from pgobserve.dependencies.attributes import AttributeKind, filtered, kind_of
from pgobserve.dependencies.dry_run import brief, no_queries, samples
from pgobserve.dependencies.gathering import Dependencies, Gathering
from pgobserve.dependencies.of_queryset import of_queryset
from pgobserve.dependencies.of_serializer import makes_fields, of_serializer, outline
from pgobserve.dependencies.prefetched import prefetched
from pgobserve.dependencies.relations import PathNode, concrete, query_names, relations_of
from pgobserve.errors import ConfigurationError
from pgobserve.render.rendering import is_bespoke
from pgobserve.triggers import registry

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from django.db.models import QuerySet
    from rest_framework.serializers import BaseSerializer

    from pgobserve.dependencies.relations import Dependency
    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.sql.keys import Model
    from pgobserve.sql.relation_path import Join

    #: An instance, or a class.
    AnySerializer = BaseSerializer[Any] | type[BaseSerializer[Any]]

_shown: WeakKeyDictionary[type, dict[Hashable, Dependencies]] = WeakKeyDictionary()


def of(
    consumer_class: type, queryset: QuerySet[Any], serializer: AnySerializer | None
) -> Dependencies:
    """
    Return the dependencies of a consumer's queryset and serializer.

    Equal results are the same object. Results for a serializer class are cached.

    Args:
        consumer_class: Its ``observe_related`` adds and removes dependencies.
        serializer: An instance, or a class; None if the rows are not shown.

    Raises:
        ConfigurationError: ``observe_related`` names an unknown relation or model.
    """
    chosen = of_queryset(queryset)
    shown = _shown_by(consumer_class, queryset, serializer)
    if not shown:
        return chosen
    return Gathering(chosen, shown).made() if chosen else shown


def shown(
    consumer_class: type, queryset: QuerySet[Any], serializer: AnySerializer | None
) -> Dependencies:
    """Return as :func:`of`, but without what only determines which rows the queryset has."""
    if serializer is None:
        return Dependencies()
    query = queryset.query
    if query.annotation_select or query.extra_select:
        return of(consumer_class, queryset, serializer)
    return _shown_by(consumer_class, queryset, serializer)


def _shown_by(
    consumer_class: type, queryset: Any, serializer: AnySerializer | None
) -> Dependencies:
    entries = declares_of(consumer_class)
    if entries is None:
        return Dependencies()
    model = concrete(queryset.model)
    cls = serializer if isinstance(serializer, type) else type(serializer)
    names = frozenset(queryset.query.annotations) | frozenset(queryset.query.extra)
    lookups = queryset._prefetch_related_lookups
    own = prefetched(lookups) if lookups else ()
    key = (model, entries, names, own, outline(serializer))
    cached = _shown.setdefault(cls, {})
    result = cached.get(key)
    if result is None:
        added, removed = declared(model, entries, consumer_class.__name__)
        gathered = Gathering()
        if serializer is not None:
            gathered.include(_derive(model, serializer, dict(own), names, removed))
        gathered.add(added)
        result = cached[key] = gathered.made()
    return result


def makes_serializers(consumer: GenericAsyncAPIConsumer) -> bool:
    """Return whether clients of one consumer class may be shown different fields."""
    return is_bespoke(consumer) or makes_fields(consumer.serializer_class)


def serializer_of(
    consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any]
) -> tuple[Any, AnySerializer]:
    """
    Return the class of a consumer's serializer, and the class or an instance to derive dependencies from.

    It is an instance, made for this client, if consumer or serializer decide the fields at run time.
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
    """Return a hashable form of ``observe_related``, by which classes share results."""
    entries = getattr(consumer_class, "observe_related", ())
    return tuple(entries) if isinstance(entries, list | tuple | set | frozenset) else entries


def _derive(
    model: Model, serializer: AnySerializer, own: Any, names: Any, removed: Any
) -> Dependencies:
    with no_queries():
        try:
            made = serializer() if isinstance(serializer, type) else serializer
        except Exception as error:  # noqa: BLE001 (the project's code)
            name = getattr(serializer, "__name__", serializer)
            what = f"{name} could not be tried ({brief(error)})"
            return Dependencies(
                unresolved=(f"{what}: what it reads of other tables can't be seen.",)
            )
        return of_serializer(concrete(model), made, own, names, removed)


def of_consumer(consumer_class: type) -> Dependencies:
    """
    Return the dependencies of a consumer class, as far as they are known without a client.

    Methods that choose the queryset or serializer run for an anonymous and an unknown user, with queries
    forbidden.

    Raises:
        ConfigurationError: ``observe_related`` names an unknown relation or model.
    """
    gathered = Gathering()
    model = None
    for queryset, serializer in samples(consumer_class, gathered.add_unresolved):
        gathered.include(of(consumer_class, queryset, serializer))
        if model is None:
            model = queryset.model
            gathered.add(_filtered(consumer_class, queryset, gathered))
    return gathered.made()


def _filtered(consumer_class: Any, queryset: Any, gathered: Gathering) -> list[Dependency]:
    try:
        with no_queries():
            return list(filtered(consumer_class, queryset, gathered.add_unresolved))
    except Exception as error:  # noqa: BLE001 (the project's code)
        gathered.add_unresolved(
            f"The filters of {consumer_class.__name__} could not be tried ({brief(error)}): what "
            "clients may filter by can't be seen."
        )
        return []


def model_of_consumer(consumer_class: Any) -> Model | None:
    """Return the declared model of a consumer's rows."""
    # Either may be a property, which has no value on the class.
    queryset = getattr(consumer_class, "queryset", None)
    meta = getattr(getattr(consumer_class, "serializer_class", None), "Meta", None)
    for each in (queryset, meta):
        model: Any = getattr(each, "model", None)
        if isinstance(model, type):
            return model
    return None


def check(consumer_class: type) -> None:
    """
    Check a consumer's ``observe_related``.

    Raises:
        ConfigurationError: It names an unknown relation or model.
    """
    entries = getattr(consumer_class, "observe_related", None)
    model = model_of_consumer(consumer_class)
    if entries is not None and model is not None:
        declared(model, entries, consumer_class.__name__)


def declared(
    model: Model, entries: Any, name: str
) -> tuple[tuple[Dependency, ...], tuple[tuple[Join, ...], ...]]:
    """
    Parse ``observe_related`` of a consumer.

    Args:
        model: The model of the consumer's rows.
        entries: Paths like ``"author.publisher"`` or ``"comments__author"``, with ``-`` before paths not
            to watch; labels of models, or models.
        name: The consumer's class, for messages.

    Returns:
        Dependencies to watch as well, and joins not to follow, nor anything beyond them.

    Raises:
        ConfigurationError: An entry is invalid.
    """
    if isinstance(entries, str | bytes) or not isinstance(entries, Iterable):
        raise ConfigurationError(
            f"{name}.observe_related must be None or a list of paths and models, not {entries!r}."
        )
    added: list[Dependency] = []
    removed: list[tuple[Join, ...]] = []
    for entry in entries:
        if isinstance(entry, type) and issubclass(entry, DjangoModel):
            added += _all_tables(entry)
        elif not isinstance(entry, str):
            raise ConfigurationError(
                f"{name}.observe_related must hold paths and models, not {entry!r}."
            )
        elif entry.startswith("-"):
            node = _node(model, entry[1:], name)
            removed.append(node.joins[: node.entry])
        else:
            added += _named(model, entry, name)
    return tuple(dict.fromkeys(added)), tuple(dict.fromkeys(removed))


def _named(model: Model, entry: str, name: str) -> list[Dependency]:
    """Return the dependencies of a path or a model's label; a relation's name takes precedence."""
    if (
        _parts(entry)[0] not in {*relations_of(model), *query_names(model)}
        and entry.count(".") == 1
    ):
        try:
            return _all_tables(registry.find(entry))
        except ConfigurationError:
            pass  # the error about a path is more helpful
    return [*_node(model, entry, name).row]


def _all_tables(model: Model) -> list[Dependency]:
    """Return a model and its parents, for their tables."""
    return [concrete(each) for each in (model, *concrete(model)._meta.get_parent_list())]


def _node(model: Model, entry: str, name: str) -> PathNode:
    node = PathNode(concrete(model), concrete(model))
    for part in _parts(entry):
        relation = relations_of(node.model).get(part) or query_names(node.model).get(part)
        if relation is None:
            if node.joins and kind_of(node.model, part)[0] is AttributeKind.COLUMN:
                return node
            raise ConfigurationError(
                f'{name}.observe_related has "{entry}", but {node.model._meta.label} has no relation '
                f'"{part}". It has: {", ".join(sorted(relations_of(node.model))) or "none"}.'
            )
        node = node.follow(relation)
    return node


def _parts(entry: str) -> list[str]:
    return entry.replace("__", ".").split(".")
