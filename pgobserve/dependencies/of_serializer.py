"""The tables that a serializer shows, besides its model's own."""

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

from pgobserve.dependencies.attributes import AttributeKind, kind_of, mentioned, ordered
from pgobserve.dependencies.dry_run import brief
from pgobserve.dependencies.gathering import Gathering
from pgobserve.dependencies.prefetched import Prefetched, of_manager
from pgobserve.dependencies.relations import PathNode, relations_of

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

    from pgobserve.dependencies.gathering import Dependencies
    from pgobserve.dependencies.relations import Dependency, ModelRelation
    from pgobserve.sql.keys import Model
    from pgobserve.sql.relation_path import Join

    #: The enclosing serializers, each with its node.
    Above = tuple[tuple[type, PathNode], ...]

#: Methods of a manager in dotted sources like ``comments.count``.
ITSELF: Final = frozenset({"all"})
ONE_OF_IT: Final = frozenset({"first", "last", "earliest", "latest"})
NUMBER_OF_IT: Final = frozenset({"count", "exists"})

#: DRF's classes, which only have declared fields.
_PLAIN: Final = frozenset(
    {Field, BaseSerializer, Serializer, ModelSerializer, HyperlinkedModelSerializer}
)

#: Levels of nested serializers; DRF's limit for `Meta.depth` is 10.
MOST_LEVELS: Final = 16


def of_serializer(
    model: Model,
    serializer: BaseSerializer[Any],
    prefetched: Mapping[str, Prefetched],
    known: Collection[str],
    removed: Collection[tuple[Join, ...]],
) -> Dependencies:
    """
    Return the dependencies of what a serializer shows.

    Args:
        model: The model of its instances.
        serializer: An instance; its context may be missing.
        prefetched: The result of :func:`pgobserve.dependencies.prefetched.prefetched`.
        known: Names of the queryset's annotations.
        removed: Joins not to follow, nor anything beyond them.
    """
    walk = _Walk(prefetched, known, removed)
    walk.serializer(PathNode(model, model), serializer, ())
    return walk.made()


class _Walk:
    """Walks a serializer's fields and nested serializers."""

    def __init__(
        self,
        prefetched: Mapping[str, Prefetched],
        known: Collection[str],
        removed: Collection[tuple[Join, ...]],
    ) -> None:
        self.gathered = Gathering()
        self._prefetched = prefetched
        self._known = known
        self._removed = removed
        self._endless: dict[tuple[Join, ...], None] = {}

    def made(self) -> Dependencies:
        """Return the result; beyond the start of an endless recursion, tables need a full refresh."""
        for path in self.gathered.paths:
            if any(
                path.joins != start and _starts_with(path.joins, start) for start in self._endless
            ):
                self.gathered.add([path.joins[-1].model])
        return self.gathered.made()

    def _is_removed(self, node: PathNode) -> bool:
        return any(_starts_with(node.joins, start) for start in self._removed)

    def _add(self, node: PathNode, dependencies: Iterable[Dependency]) -> None:
        if not self._is_removed(node):
            self.gathered.add(dependencies)

    def _add_unresolved(self, node: PathNode, sentence: str) -> None:
        if not self._is_removed(node):
            self.gathered.add_unresolved(sentence)

    def serializer(self, node: PathNode, serializer: BaseSerializer[Any], above: Above) -> None:
        """Add what a serializer shows of a node's rows."""
        if isinstance(serializer, ListSerializer):
            self._check_override(node, serializer, ListSerializer)
            serializer = serializer.child  # type: ignore[assignment]
        cls = type(serializer)
        start = next((at for each, at in above if (each, at.model) == (cls, node.model)), None)
        if start is not None or len(above) >= MOST_LEVELS:
            if not self._is_removed(node):
                self._endless[(start or above[0][1]).joins] = None
            return
        if not isinstance(serializer, Serializer):
            self._opaque(node, f"{cls.__name__} is a serializer without fields")
            return
        self._check_override(node, serializer, Serializer)
        try:
            fields = list(serializer.fields.items())
        except Exception as error:  # noqa: BLE001 (the project's code)
            self._opaque(node, f"The fields of {cls.__name__} can't be determined ({brief(error)})")
            return
        for name, field in fields:
            if not field.write_only:
                self._field(node, field, f"{cls.__name__}.{name}", (*above, (cls, node)))

    def _check_override(self, node: PathNode, serializer: Any, ours: type) -> None:
        cls: Any = type(serializer)
        if cls.to_representation is not ours.to_representation:  # type: ignore[attr-defined]
            self._opaque(node, f"{cls.__name__} overrides to_representation()")

    def _field(self, node: PathNode, field: Any, where: str, above: Above) -> None:
        if isinstance(field, SerializerMethodField):
            method = getattr(field.parent, field.method_name or "", None)
            self._opaque(node, f"{where} is a SerializerMethodField", method)
        elif field.source_attrs:
            if isinstance(field, RelatedField) and field.use_pk_only_optimization():
                self._key_only(node, field.source_attrs, where)
                return
            end = self._walk(node, field.source_attrs, where)
            if end is not None:
                self._show(end, field, where, above)
        elif isinstance(field, BaseSerializer | HyperlinkedRelatedField):
            self._show(node, field, where, above)
        else:
            self._opaque(node, f"{where} is given the whole {node.model._meta.label}")

    def _key_only(self, node: PathNode, attributes: Sequence[str], where: str) -> None:
        """Add a field that shows a related row's key; DRF reads nothing else of the row."""
        owner = self._walk(node, attributes[:-1], where)
        if owner is None:
            return
        relation = relations_of(owner.model).get(attributes[-1])
        if relation is None or relation.many or relation.joins[-1][1]:
            end = self._walk(owner, attributes[-1:], where)
            if end is not None:
                self._add(end, end.key)
        else:
            # The key is the value of the foreign key's column.
            source = relation.joins[-1][0].on[0][0]
            self._add(owner, owner.value(source))

    def _show(self, node: PathNode, field: Any, where: str, above: Above) -> None:
        """Add what a field shows of related rows."""
        node = replace(node, many=False)
        if isinstance(field, BaseSerializer):
            self.serializer(node, field, above)
        elif isinstance(field, ManyRelatedField | ListField):
            child = field.child if isinstance(field, ListField) else field.child_relation
            self._show(node, child, where, above)
        elif isinstance(field, SlugRelatedField):
            self._attribute(node, str(field.slug_field).replace("__", "."), where)
        elif isinstance(field, HyperlinkedRelatedField):
            self._attribute(node, field.lookup_field, where)
        elif isinstance(field, PrimaryKeyRelatedField) or (
            isinstance(field, RelatedField) and field.use_pk_only_optimization()
        ):
            self._add(node, node.key)
        elif isinstance(field, RelatedField) and not isinstance(field, StringRelatedField):
            self._opaque(node, f"{where} is a custom relational field")
        else:
            self._text(node, where)

    def _attribute(self, node: PathNode, dotted: str, where: str) -> None:
        end = self._walk(node, dotted.split("."), where)
        if end is not None:
            self._text(end, where)

    def _text(self, node: PathNode, where: str) -> None:
        """Add rows that are shown as text."""
        self._add(node, node.row)
        if names := mentioned(node.model, node.model.__str__):
            label = node.model._meta.label
            self._add_unresolved(node, f"{where} shows str() of {label}, which mentions {names}.")

    def _opaque(self, node: PathNode, what: str, method: Any = None) -> None:
        self._add(node, node.row)
        names = mentioned(node.model, method)
        hint = f" It mentions {names}." if names else ""
        self._add_unresolved(node, f"{what}: what it reads of other tables can't be seen.{hint}")

    def _walk(self, node: PathNode, attributes: Sequence[str], where: str) -> PathNode | None:
        """Follow attributes; return the last node, or None if they end in a value."""
        for name in attributes:
            relation = self._relation(node, name)
            if relation is not None:
                node = self._follow(node, relation, name)
            elif node.many and name in ONE_OF_IT:
                self._add(node, node.row)  # columns decide which row it is
                node = replace(node, many=False)
            elif not (node.many and name in ITSELF):
                self._end(node, name, where)
                return None
        return node

    def _end(self, node: PathNode, name: str, where: str) -> None:
        """Add an attribute that is no relation."""
        kind, fields = kind_of(node.model, name)
        if node.many:
            if name not in NUMBER_OF_IT:
                self._opaque(node, f'{where} calls "{name}" of a manager')
        elif kind is AttributeKind.COLUMN:
            for field in fields:
                self._add(node, node.value(field))
        elif not self._is_known(node, name):
            what = f'{where} shows "{name}", which is {kind.value} of {node.model._meta.label}'
            self._opaque(node, what, getattr(node.model, name, None))

    def _is_known(self, node: PathNode, name: str) -> bool:
        if not node.path:
            return name in self._known
        here = self._prefetched.get("__".join(node.path))
        return here is not None and name in here.known

    def _relation(self, node: PathNode, name: str) -> ModelRelation | None:
        if node.many:
            return None
        own = self._prefetched.get("__".join((*node.path, name)))
        return relations_of(node.model).get(own.relation if own else name)

    def _follow(self, node: PathNode, relation: ModelRelation, name: str) -> PathNode:
        node = node.follow(relation, name)
        self._add(node, node.dependencies)
        own = self._prefetched.get("__".join(node.path))
        chosen = own or of_manager(relation)
        if chosen is not None:
            if not self._is_removed(node):
                self.gathered.add_at(node, chosen.inner)
            if chosen.filters:
                self._add(node, node.row)
        if relation.many:
            order = None if chosen is None else chosen.order
            usual = relation.model._meta.ordering or ()
            self._add(node, ordered(node, usual if order is None else order))
        return node


def _starts_with(joins: tuple[Join, ...], start: tuple[Join, ...]) -> bool:
    return joins[: len(start)] == start


def makes_fields(cls: Any) -> bool:
    """Return whether instances of a serializer class may have different fields."""
    if not (isinstance(cls, type) and issubclass(cls, Serializer)):
        return False
    for name in ("__init__", "get_fields", "fields"):
        owner = next(each for each in cls.__mro__ if name in vars(each))
        if owner not in _PLAIN:
            return True
    inner = (getattr(field, "child", field) for field in cls._declared_fields.values())
    return any(makes_fields(type(field)) for field in inner)


def outline(serializer: Any, levels: int = MOST_LEVELS) -> Hashable:
    """Return the fields of a serializer if its class may have different fields, else None."""
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
