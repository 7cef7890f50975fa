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
    Dependency = RelationPath | Model


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
        joins: The joins that lead there.
        dependencies: What decides which rows are there.
        entry: How many of the joins lead into the last relation: to the table that refers, of a
            many-to-many field the one between.
        path: Names of the attributes that led there.
        many: Whether the last of them is a manager.
    """

    root: Model
    model: Model
    joins: tuple[Join, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    entry: int = 0
    path: tuple[str, ...] = ()
    many: bool = False

    def follow(self, relation: ModelRelation, name: str = "") -> PathNode:
        """Return the spot that a relation leads to, by the name of the attribute that has it."""
        joins, dependencies = self.joins, list(self.dependencies)
        if self.joins and not self._shares_key(relation):
            dependencies += self.row
        for number, (join, is_reverse) in enumerate(relation.joins, 1):
            joins = (*joins, join)
            if number > relation.ancestors and (is_reverse or number < len(relation.joins)):
                dependencies.append(dependency(self.root, joins, is_reverse=is_reverse))
        return PathNode(
            self.root,
            relation.model,
            joins,
            tuple(dict.fromkeys(dependencies)),
            len(self.joins) + relation.ancestors + 1,
            (*self.path, name or relation.name),
            relation.many,
        )

    def _shares_key(self, relation: ModelRelation) -> bool:
        """Tell whether the relation begins at the value that has led here already."""
        last = self.joins[-1]
        for join, _ in relation.joins[: relation.ancestors + 1]:
            targets = {target for _, target in last.on}
            if not all(source in targets for source, _ in join.on):
                return False
            last = join
        return True

    @property
    def row(self) -> tuple[Dependency, ...]:
        """What must be watched where the contents of the rows matter, of all their tables."""
        if not self.joins:
            return ()
        found: list[Dependency] = [*self.dependencies]
        if not any(isinstance(each, RelationPath) and each.joins == self.joins for each in found):
            found.append(RelationPath(self.root, self.joins))
        for parent in self.model._meta.get_parent_list():
            path = self.model._meta.get_path_to_parent(parent)
            joins = (*self.joins, *(join_along(info.join_field) for info in path))
            found.append(RelationPath(self.root, joins))
        return tuple(dict.fromkeys(found))

    def value(self, field: Field[Any, Any]) -> tuple[Dependency, ...]:
        """Return what must be watched where one column of the rows matters."""
        if self.joins and any(field == target for _, target in self.joins[-1].on):
            return self.dependencies
        return self.row

    @property
    def key(self) -> tuple[Dependency, ...]:
        """What must be watched where only the keys of the rows matter."""
        found = (each for field in key_fields(self.model) for each in self.value(field))
        return tuple(dict.fromkeys(found))


def dependency(root: Model, joins: tuple[Join, ...], *, is_reverse: bool) -> Dependency:
    """Return the link for these joins, or the table if changes of it can't be led back."""
    last = joins[-1]
    if not is_reverse:
        return RelationPath(root, joins)
    return RelationPath(root, joins, last.on[0][1]) if len(last.on) == 1 else last.model


def key_or_route(root: Model, joins: tuple[Join, ...]) -> Dependency:
    """Return the link for joins of which the last one compares with any column, and one alone."""
    target = joins[-1].on[0][1]
    return RelationPath(root, joins, None if key_fields(joins[-1].model) == (target,) else target)


def join_along(join_field: Any) -> Join:
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
        (join_along(info.join_field), isinstance(info.join_field, ForeignObjectRel))
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
