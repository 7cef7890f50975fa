"""Which tables a serializer shows rows of, besides its model's own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from rest_framework.fields import Field
from rest_framework.relations import (
    HyperlinkedRelatedField,
    ManyRelatedField,
    PrimaryKeyRelatedField,
    RelatedField,
    SlugRelatedField,
    StringRelatedField,
)
from rest_framework.serializers import (
    BaseSerializer,
    HyperlinkedModelSerializer,
    ListField,
    ListSerializer,
    ModelSerializer,
    Serializer,
    SerializerMethodField,
)

from pgobserve.dependencies.attributes import AttributeKind, kind_of, mentioned
from pgobserve.dependencies.dry_run import brief
from pgobserve.dependencies.gathering import Gathering
from pgobserve.dependencies.lookups import ordered
from pgobserve.dependencies.prefetched import Prefetched, of_manager
from pgobserve.dependencies.relations import PathNode, relations_of

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

    from pgobserve.dependencies.gathering import Dependencies
    from pgobserve.dependencies.relations import ModelRelation, Need
    from pgobserve.sql.keys import Model
    from pgobserve.sql.relation_path import Join

    #: The serializers around one, and where they are.
    Above = tuple[tuple[type, PathNode], ...]

#: What a manager is asked for, by dotted sources like ``comments.count``.
ITSELF: Final = frozenset({"all"})
ONE_OF_IT: Final = frozenset({"first", "last", "earliest", "latest"})
NUMBER_OF_IT: Final = frozenset({"count", "exists"})

#: The classes of DRF whose fields are those that are declared.
_PLAIN: Final = frozenset(
    {Field, BaseSerializer, Serializer, ModelSerializer, HyperlinkedModelSerializer}
)

#: Serializers in each other; DRF's own limit for `Meta.depth` is 10.
MOST_LEVELS: Final = 16


def of_serializer(
    model: Model,
    serializer: BaseSerializer[Any],
    prefetched: Mapping[str, Prefetched] | None = None,
    known: Collection[str] = (),
    removed: Collection[tuple[Join, ...]] = (),
) -> Dependencies:
    """
    Return what a serializer shows of other tables.

    Args:
        model: Of the instances that it is given.
        serializer: An instance; its context may be missing.
        prefetched: What the queryset prefetches in a way of its own, see
            :func:`pgobserve.dependencies.prefetched.prefetched`.
        known: Names of values that the queryset annotates the instances with.
        removed: Joins that are not followed, nor anything beyond them.
    """
    shown = _Shown(prefetched or {}, known, removed)
    shown.serializer(PathNode(model, model), serializer, ())
    return shown.made()


class _Shown:
    """What a serializer shows, as far as it was looked at."""

    def __init__(
        self,
        prefetched: Mapping[str, Prefetched],
        known: Collection[str],
        removed: Collection[tuple[Join, ...]],
    ) -> None:
        self.found = Gathering()
        self._prefetched = prefetched
        self._known = known
        self._removed = removed
        self._endless: dict[tuple[Join, ...], None] = {}

    def made(self) -> Dependencies:
        """Return it; links from which on a serializer goes on without an end are wide."""
        for link in self.found.links:
            if any(link.hops != start and _begins(link.hops, start) for start in self._endless):
                self.found.add([link.hops[-1].model])
        return self.found.made()

    def _is_removed(self, spot: PathNode) -> bool:
        return any(_begins(spot.hops, start) for start in self._removed)

    def _add(self, spot: PathNode, needs: Iterable[Need]) -> None:
        if not self._is_removed(spot):
            self.found.add(needs)

    def _add_unseen(self, spot: PathNode, sentence: str) -> None:
        if not self._is_removed(spot):
            self.found.add_unseen(sentence)

    def serializer(self, spot: PathNode, serializer: BaseSerializer[Any], above: Above) -> None:
        """Look at what a serializer shows of the rows at a spot."""
        if isinstance(serializer, ListSerializer):
            self._custom(spot, serializer, ListSerializer)
            serializer = serializer.child  # type: ignore[assignment]
        cls = type(serializer)
        start = next((at for each, at in above if (each, at.model) == (cls, spot.model)), None)
        if start is not None or len(above) >= MOST_LEVELS:
            if not self._is_removed(spot):
                self._endless[(start or above[0][1]).hops] = None
            return
        if not isinstance(serializer, Serializer):
            self._opaque(spot, f"{cls.__name__} is a serializer without fields")
            return
        self._custom(spot, serializer, Serializer)
        try:
            fields = list(serializer.fields.items())
        except Exception as error:  # noqa: BLE001 (the project's code)
            self._opaque(spot, f"The fields of {cls.__name__} can't be told ({brief(error)})")
            return
        for name, field in fields:
            if not field.write_only:
                self._field(spot, field, f"{cls.__name__}.{name}", (*above, (cls, spot)))

    def _custom(self, spot: PathNode, serializer: Any, ours: type) -> None:
        cls: Any = type(serializer)
        if cls.to_representation is not ours.to_representation:  # type: ignore[attr-defined]
            self._opaque(spot, f"{cls.__name__} has a to_representation() of its own")

    def _field(self, spot: PathNode, field: Any, where: str, above: Above) -> None:
        if isinstance(field, SerializerMethodField):
            method = getattr(field.parent, field.method_name or "", None)
            self._opaque(spot, f"{where} is a SerializerMethodField", method)
        elif field.source_attrs:
            if isinstance(field, RelatedField) and field.use_pk_only_optimization():
                self._key_only(spot, field.source_attrs, where)
                return
            end = self._walk(spot, field.source_attrs, where)
            if end is not None:
                self._show(end, field, where, above)
        elif isinstance(field, BaseSerializer | HyperlinkedRelatedField):
            self._show(spot, field, where, above)
        else:
            self._opaque(spot, f"{where} is given the whole {spot.model._meta.label}")

    def _key_only(self, spot: PathNode, attributes: Sequence[str], where: str) -> None:
        """Look at a field that shows the key of one related row: DRF reads no more of it."""
        owner = self._walk(spot, attributes[:-1], where)
        if owner is None:
            return
        relation = relations_of(owner.model).get(attributes[-1])
        if relation is None or relation.many or relation.joins[-1][1]:
            end = self._walk(owner, attributes[-1:], where)
            self._add(end or owner, () if end is None else end.key)
        else:
            # The column of the foreign key.
            source = relation.joins[-1][0].on[0][0]
            self._add(owner, owner.value(source))

    def _show(self, spot: PathNode, field: Any, where: str, above: Above) -> None:
        """Look at what a field shows of related rows."""
        spot = replace(spot, many=False)
        if isinstance(field, BaseSerializer):
            self.serializer(spot, field, above)
        elif isinstance(field, ManyRelatedField):
            self._show(spot, field.child_relation, where, above)
        elif isinstance(field, ListField):
            self._show(spot, field.child, where, above)
        elif isinstance(field, SlugRelatedField):
            self._attribute(spot, str(field.slug_field).replace("__", "."), where)
        elif isinstance(field, HyperlinkedRelatedField):
            self._attribute(spot, field.lookup_field, where)
        elif isinstance(field, PrimaryKeyRelatedField) or (
            isinstance(field, RelatedField) and field.use_pk_only_optimization()
        ):
            self._add(spot, spot.key)
        elif isinstance(field, RelatedField) and not isinstance(field, StringRelatedField):
            self._opaque(spot, f"{where} is a field of its own making")
        else:
            self._text(spot, where)

    def _attribute(self, spot: PathNode, dotted: str, where: str) -> None:
        end = self._walk(spot, dotted.split("."), where)
        if end is not None:
            self._text(end, where)

    def _text(self, spot: PathNode, where: str) -> None:
        """Look at rows that are shown as their text."""
        self._add(spot, spot.row)
        if names := mentioned(spot.model, spot.model.__str__):
            label = spot.model._meta.label
            self._add_unseen(spot, f"{where} shows str() of {label}, which mentions {names}.")

    def _opaque(self, spot: PathNode, what: str, method: Any = None) -> None:
        self._add(spot, spot.row)
        names = mentioned(spot.model, method)
        hint = f" It mentions {names}." if names else ""
        self._add_unseen(spot, f"{what}: what it reads of other tables can't be seen.{hint}")

    def _walk(self, spot: PathNode, attributes: Sequence[str], where: str) -> PathNode | None:
        """Follow attributes; return where they end, or None where that is a value."""
        for name in attributes:
            relation = self._relation(spot, name)
            if relation is not None:
                spot = self._follow(spot, relation, name)
            elif spot.many and name in ONE_OF_IT:
                self._add(spot, spot.row)  # which one it is, its columns say
                spot = replace(spot, many=False)
            elif not (spot.many and name in ITSELF):
                self._end(spot, name, where)
                return None
        return spot

    def _end(self, spot: PathNode, name: str, where: str) -> None:
        """Look at an attribute that is no relation."""
        kind, fields = kind_of(spot.model, name)
        if spot.many:
            if name not in NUMBER_OF_IT:
                self._opaque(spot, f'{where} asks a manager for "{name}"')
        elif kind is AttributeKind.COLUMN:
            for field in fields:
                self._add(spot, spot.value(field))
        elif not self._is_known(spot, name):
            what = f'{where} shows "{name}", which is {kind.value} of {spot.model._meta.label}'
            self._opaque(spot, what, getattr(spot.model, name, None))

    def _is_known(self, spot: PathNode, name: str) -> bool:
        if not spot.path:
            return name in self._known
        here = self._prefetched.get("__".join(spot.path))
        return here is not None and name in here.known

    def _relation(self, spot: PathNode, name: str) -> ModelRelation | None:
        if spot.many:
            return None
        own = self._prefetched.get("__".join((*spot.path, name)))
        return relations_of(spot.model).get(own.relation if own else name)

    def _follow(self, spot: PathNode, relation: ModelRelation, name: str) -> PathNode:
        spot = spot.follow(relation, name)
        self._add(spot, spot.needs)
        own = self._prefetched.get("__".join(spot.path))
        chosen = own or of_manager(relation)
        if chosen is not None:
            if not self._is_removed(spot):
                self.found.add_at(spot, chosen.inner)
            if chosen.filters:
                self._add(spot, spot.row)
        if relation.many:
            order = None if chosen is None else chosen.order
            usual = relation.model._meta.ordering or ()
            self._add(spot, ordered(spot, usual if order is None else order))
        return spot


def _begins(hops: tuple[Join, ...], start: tuple[Join, ...]) -> bool:
    return hops[: len(start)] == start


def makes_fields(cls: Any) -> bool:
    """Tell whether instances of a serializer's class may have other fields than others of it."""
    if not (isinstance(cls, type) and issubclass(cls, Serializer)):
        return False
    for name in ("__init__", "get_fields", "fields"):
        owner = next(each for each in cls.__mro__ if name in vars(each))
        if owner not in _PLAIN:
            return True
    inner = (getattr(field, "child", field) for field in cls._declared_fields.values())
    return any(makes_fields(type(field)) for field in inner)


def outline(serializer: Any, levels: int = MOST_LEVELS) -> Hashable:
    """Return what tells an instance of a serializer's class from others; None if the class does."""
    serializer = getattr(serializer, "child", serializer)
    if not makes_fields(type(serializer)) or not levels:
        return None
    try:
        fields = serializer.fields
    except Exception:  # noqa: BLE001 (the project's code)
        return None
    return tuple(
        (name, type(field), field.source, field.write_only, outline(field, levels - 1))
        for name, field in fields.items()
    )
