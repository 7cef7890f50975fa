"""
Models' relations as joins, and the dependencies of a path of attributes.

A node stands for the related rows at the end of such a path, as seen from a watched row.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db.models import ForeignObjectRel

from pgobserve.sql.keys import key_fields
from pgobserve.sql.relation_path import Join, RelationPath
from pgobserve.triggers.registry import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from django.db.models import Field

    from pgobserve.sql.keys import Model

    #: A path to watch, or a model whose changes all require a full refresh.
    Dependency = RelationPath | Model


@dataclass(frozen=True, slots=True)
class ModelRelation:
    """
    A relation of a model, forward or reverse.

    Attributes:
        name: The attribute's name.
        query_name: The name in filters.
        joins: The joins, each with whether it is reverse: the joined table refers to the previous table.
        ancestors: The number of first joins that lead to the parent's table with the relation.
        model: The related model.
        many: Whether the attribute is a manager.
    """

    name: str
    query_name: str
    joins: tuple[tuple[Join, bool], ...]
    ancestors: int
    model: Model
    many: bool


@dataclass(frozen=True, slots=True)
class PathNode:
    """
    Related rows, and what determines which rows these are.

    Attributes:
        root: The watched model.
        model: The related rows' model.
        joins: The joins to them.
        dependencies: What determines which rows are related.
        entry: The number of joins up to the last relation's first table, which for a many-to-many field
            is the through table.
        path: The names of the attributes.
        many: Whether the last attribute is a manager.
    """

    root: Model
    model: Model
    joins: tuple[Join, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    entry: int = 0
    path: tuple[str, ...] = ()
    many: bool = False

    def follow(self, relation: ModelRelation, name: str = "") -> PathNode:
        """Return the node behind a relation; ``name`` is the attribute if it is not the relation's own."""
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
        """Return whether the relation starts from columns that the last join has compared."""
        last = self.joins[-1]
        for join, _ in relation.joins[: relation.ancestors + 1]:
            targets = {target for _, target in last.on}
            if not all(source in targets for source, _ in join.on):
                return False
            last = join
        return True

    @property
    def row(self) -> tuple[Dependency, ...]:
        """The dependencies of the rows' contents, in all their tables."""
        if not self.joins:
            return ()
        result: list[Dependency] = [*self.dependencies]
        if not any(isinstance(each, RelationPath) and each.joins == self.joins for each in result):
            result.append(RelationPath(self.root, self.joins))
        for parent in self.model._meta.get_parent_list():
            path = self.model._meta.get_path_to_parent(parent)
            joins = (*self.joins, *(join_along(info.join_field) for info in path))
            result.append(RelationPath(self.root, joins))
        return tuple(dict.fromkeys(result))

    def value(self, field: Field[Any, Any]) -> tuple[Dependency, ...]:
        """Return the dependencies of one column."""
        if self.joins and any(field == target for _, target in self.joins[-1].on):
            return self.dependencies
        return self.row

    @property
    def key(self) -> tuple[Dependency, ...]:
        """The dependencies of the rows' keys."""
        result = (each for field in key_fields(self.model) for each in self.value(field))
        return tuple(dict.fromkeys(result))


def dependency(root: Model, joins: tuple[Join, ...], *, is_reverse: bool) -> Dependency:
    """Return the path for these joins, or the table if its changes can't be resolved."""
    last = joins[-1]
    if not is_reverse:
        return RelationPath(root, joins)
    return RelationPath(root, joins, last.on[0][1]) if len(last.on) == 1 else last.model


def key_or_route(root: Model, joins: tuple[Join, ...]) -> Dependency:
    """Return the path for joins whose last one compares a single column."""
    target = joins[-1].on[0][1]
    return RelationPath(root, joins, None if key_fields(joins[-1].model) == (target,) else target)


def join_along(join_field: Any) -> Join:
    """Return the ORM's join along a field, forward or reverse."""
    on = tuple(join_field.get_joining_fields())
    return Join(concrete(on[0][1].model), on)


def concrete(model: Model) -> Model:
    """Return the model that owns the table; a proxy's is another."""
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
        # Third-party fields may claim to be relations without joining like Django's.
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
    related = concrete(field.related_model)
    return ModelRelation(name, field.name, joins, len(ancestors), related, many)


@lru_cache(maxsize=1024)
def query_names(model: Model) -> Mapping[str, ModelRelation]:
    """Return the relations of a model by their names in filters."""
    return {each.query_name: each for each in relations_of(model).values()}


@dataclass(frozen=True, slots=True)
class Through:
    """
    A many-to-many field's through table, seen from the field's model.

    Attributes:
        model: The through model.
        attname: The through model's attribute that refers to the owner.
        target: The owner's attribute that it refers to.
    """

    name: str
    model: Model
    attname: str
    target: str

    def path_from(self, root: Model) -> RelationPath:
        """Return the path from the owner to the through table."""
        target: Any = root._meta.get_field(self.target)
        source: Any = self.model._meta.get_field(self.attname)
        return RelationPath(root, (Join(self.model, ((target, source),)),), source)


def throughs_of(model: Model) -> Iterable[Through]:
    """Yield the through tables of a model's many-to-many fields."""
    for field in model._meta.many_to_many:
        through: Any = field.remote_field.through
        to_owner = through._meta.get_field(field.m2m_field_name())
        owner = to_owner.target_field.attname
        yield Through(field.name, canonical(through), to_owner.attname, owner)
