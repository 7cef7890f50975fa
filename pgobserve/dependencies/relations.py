"""
Models' relations as joins: from attributes, as serializers and people name them, to links.

A spot is a set of related rows, seen from a watched one: where a path of attributes has led.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db.models import ForeignObjectRel

from pgobserve.sql.keys import key_fields
from pgobserve.sql.relation_path import Join, RelationPath

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from django.db.models import Field

    from pgobserve.sql.keys import Model

    #: What must be watched: a link, or a table of which any change concerns all rows.
    Need = RelationPath | Model


@dataclass(frozen=True, slots=True)
class ModelRelation:
    """
    A relation of a model, forward or reverse.

    Attributes:
        name: Of the attribute.
        joins: Its joins, each with whether it is reverse: from what is referred to, to what refers.
        ancestors: How many of them only lead to a parent's table, where the relation is defined.
        model: The related model.
        many: Whether the attribute is a manager.
    """

    name: str
    joins: tuple[tuple[Join, bool], ...]
    ancestors: int
    model: Model
    many: bool


@dataclass(frozen=True, slots=True)
class PathNode:
    """
    Related rows, and what must be watched to know which they are.

    Attributes:
        root: The watched model.
        model: The model of the rows.
        hops: The joins that lead there.
        needs: What decides which rows are there.
        entry: How many of the joins lead into the last relation: to the table that refers, of a
            many-to-many field the one between.
        path: Names of the attributes that led there.
        many: Whether the last of them is a manager.
    """

    root: Model
    model: Model
    hops: tuple[Join, ...] = ()
    needs: tuple[Need, ...] = ()
    entry: int = 0
    path: tuple[str, ...] = ()
    many: bool = False

    def follow(self, relation: ModelRelation, name: str = "") -> PathNode:
        """Return the spot that a relation leads to, by the name of the attribute that has it."""
        hops, needs = self.hops, list(self.needs)
        if self.hops and not self._shares_key(relation):
            needs += self.row
        for number, (hop, is_reverse) in enumerate(relation.joins, 1):
            hops = (*hops, hop)
            if number > relation.ancestors and (is_reverse or number < len(relation.joins)):
                needs.append(need(self.root, hops, is_reverse=is_reverse))
        return PathNode(
            self.root,
            relation.model,
            hops,
            tuple(dict.fromkeys(needs)),
            len(self.hops) + relation.ancestors + 1,
            (*self.path, name or relation.name),
            relation.many,
        )

    def _shares_key(self, relation: ModelRelation) -> bool:
        """Tell whether the relation begins at the value that has led here already."""
        last = self.hops[-1]
        for hop, _ in relation.joins[: relation.ancestors + 1]:
            targets = {target for _, target in last.on}
            if not all(source in targets for source, _ in hop.on):
                return False
            last = hop
        return True

    @property
    def row(self) -> tuple[Need, ...]:
        """What must be watched where the contents of the rows matter, of all their tables."""
        if not self.hops:
            return ()
        found: list[Need] = [*self.needs]
        if not any(isinstance(each, RelationPath) and each.hops == self.hops for each in found):
            found.append(RelationPath(self.root, self.hops))
        for parent in self.model._meta.get_parent_list():
            path = self.model._meta.get_path_to_parent(parent)
            hops = (*self.hops, *(hop_of(info.join_field) for info in path))
            found.append(RelationPath(self.root, hops))
        return tuple(dict.fromkeys(found))

    def value(self, field: Field[Any, Any]) -> tuple[Need, ...]:
        """Return what must be watched where one column of the rows matters."""
        if self.hops and any(field == target for _, target in self.hops[-1].on):
            return self.needs
        return self.row

    @property
    def key(self) -> tuple[Need, ...]:
        """What must be watched where only the keys of the rows matter."""
        found = (each for field in key_fields(self.model) for each in self.value(field))
        return tuple(dict.fromkeys(found))


def need(root: Model, hops: tuple[Join, ...], *, is_reverse: bool) -> Need:
    """Return the link for these joins, or the table if changes of it can't be led back."""
    last = hops[-1]
    if not is_reverse:
        return RelationPath(root, hops)
    return RelationPath(root, hops, last.on[0][1]) if len(last.on) == 1 else last.model


def key_or_route(root: Model, hops: tuple[Join, ...]) -> Need:
    """Return the link for joins of which the last one compares with any column, and one alone."""
    target = hops[-1].on[0][1]
    return RelationPath(root, hops, None if key_fields(hops[-1].model) == (target,) else target)


def hop_of(join_field: Any) -> Join:
    """Return a join along a field, or the other end of one, as the ORM makes it."""
    on = tuple(join_field.get_joining_fields())
    return Join(concrete(on[0][1].model), on)


def concrete(model: Model) -> Model:
    """Return the model that has the table."""
    return model._meta.concrete_model or model


@lru_cache(maxsize=1024)
def relations_of(model: Model) -> Mapping[str, ModelRelation]:
    """Return the relations of a model by the names of its attributes."""
    return {each.name: each for each in _relations(model)}


def _relations(model: Model) -> Iterator[ModelRelation]:
    for field in model._meta.get_fields():
        if not field.is_relation or is_generic(field):
            continue
        name = field.name
        if isinstance(field, ForeignObjectRel):
            accessor = field.get_accessor_name()
            if accessor is None or field.hidden:
                continue
            name = accessor
        # Others' fields may look like relations, and not be joined as Django's are.
        with suppress(AttributeError, TypeError, NotImplementedError):
            yield _relation(model, name, field)


def is_generic(field: Any) -> bool:
    """Tell whether a field is a generic foreign key, which may refer to rows of any model."""
    return bool(field.is_relation and field.related_model is None)


def _relation(model: Model, name: str, field: Any) -> ModelRelation:
    infos: Iterable[Any] = field.path_infos
    owner = concrete(field.model)
    opts: Any = concrete(model)._meta
    ancestors = opts.get_path_to_parent(owner) if owner is not opts.model else []
    joins = tuple(
        (hop_of(info.join_field), isinstance(info.join_field, ForeignObjectRel))
        for info in (*ancestors, *infos)
    )
    many = bool(field.many_to_many or field.one_to_many)
    return ModelRelation(name, joins, len(ancestors), concrete(field.related_model), many)


@lru_cache(maxsize=1024)
def query_names(model: Model) -> Mapping[str, ModelRelation]:
    """Return the relations of a model by the names that filters have for them."""
    known = relations_of(model)
    found: dict[str, ModelRelation] = {}
    for field in model._meta.get_fields():
        name = field.get_accessor_name() if isinstance(field, ForeignObjectRel) else field.name
        if name is not None and name in known:
            found[field.name] = known[name]
    return found
