"""Parses ``observe_related``: what else a consumer watches, and what it does not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models import Model as DjangoModel

from pgobserve.dependencies.attributes import AttributeKind, kind_of
from pgobserve.dependencies.relations import PathNode, concrete, query_names, relations_of
from pgobserve.errors import ConfigurationError
from pgobserve.triggers import registry

if TYPE_CHECKING:
    from pgobserve.dependencies.relations import Dependency
    from pgobserve.sql.keys import Model
    from pgobserve.sql.relation_path import Join


@dataclass(frozen=True, slots=True)
class Declared:
    """
    A consumer's ``observe_related``.

    Attributes:
        added: Dependencies to watch as well.
        removed: Joins not to follow, nor anything beyond them.
    """

    added: tuple[Dependency, ...] = ()
    removed: tuple[tuple[Join, ...], ...] = ()


def declared(model: Model, entries: Any, name: str) -> Declared:
    """
    Parse ``observe_related`` of a consumer.

    Args:
        model: The model of the consumer's rows.
        entries: Paths like ``"author.publisher"`` or ``"comments__author"``, with ``-`` before paths not
            to watch; labels of models, or models.
        name: The consumer's class, for messages.

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
    return Declared(tuple(dict.fromkeys(added)), tuple(dict.fromkeys(removed)))


def _named(model: Model, entry: str, name: str) -> list[Dependency]:
    """Return the dependencies of a path or a model's label; a relation's name takes precedence."""
    if _parts(entry)[0] not in _choices(model) and entry.count(".") == 1:
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


def _choices(model: Model) -> set[str]:
    return {*relations_of(model), *query_names(model)}
