"""Attributes of models: what they are, which relations code mentions, and names in filters and orders."""

from __future__ import annotations

from enum import Enum
from inspect import getattr_static
from types import CodeType
from typing import TYPE_CHECKING, Any

from django.core.exceptions import FieldDoesNotExist
from django.utils.functional import cached_property

from pgobserve.dependencies.relations import (
    PathNode,
    concrete,
    is_generic,
    query_names,
    relations_of,
)
from pgobserve.sql.keys import key_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from django.db.models import Field

    from pgobserve.dependencies.relations import Dependency
    from pgobserve.sql.keys import Model


class AttributeKind(Enum):
    """Kinds of attributes that are no relations; the values appear in messages."""

    COLUMN = "a column"
    GENERIC = "a generic foreign key"
    PROPERTY = "a property"
    METHOD = "a method"
    OTHER = "no field"


def kind_of(model: Model, name: str) -> tuple[AttributeKind, tuple[Field[Any, Any], ...]]:
    """Return an attribute's kind, and the fields of a column."""
    if name == "pk":
        return AttributeKind.COLUMN, key_fields(model)
    for field in model._meta.concrete_fields:
        if name in (field.attname, field.name):
            return AttributeKind.COLUMN, (field,)
    try:
        if is_generic(model._meta.get_field(name)):
            return AttributeKind.GENERIC, ()
    except FieldDoesNotExist:
        pass
    attribute = getattr_static(model, name, None)
    if isinstance(attribute, property | cached_property):
        return AttributeKind.PROPERTY, ()
    return (
        AttributeKind.METHOD if callable(getattr(model, name, None)) else AttributeKind.OTHER
    ), ()


def mentioned(model: Model, code: Any) -> str:
    """Return which of a model's relations a function's or property's code mentions, as text."""
    if isinstance(code, property):
        code = code.fget
    elif isinstance(code, cached_property):
        code = code.func
    compiled = getattr(code, "__code__", None)
    names = set(_names(compiled)) if isinstance(compiled, CodeType) else set()
    return ", ".join(sorted(names & relations_of(model).keys()))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


#: Prefixes of names for DRF's SearchFilter.
PREFIXES = "^=@$"


def ordered(node: PathNode, order: Iterable[Any]) -> Iterator[Dependency]:
    """Yield the dependencies of the order of related rows."""
    for entry in order:
        if isinstance(entry, str):
            end, dependencies = _looked_up(node, entry.lstrip("-+"))
            yield from dependencies if end is None else end.row
        else:
            yield from node.row  # an expression, which may read any column


def filtered(
    cls: Any, queryset: Any, add_unresolved: Callable[[str], None]
) -> Iterator[Dependency]:
    """
    Yield the dependencies of filters for clients: django-filter's filter sets, DRF's ``search_fields``.

    Args:
        cls: A consumer class.
        queryset: One of its querysets.
        add_unresolved: Receives a sentence for each filter that can't be followed.
    """
    model = concrete(queryset.model)
    node = PathNode(model, model)
    for name in _filter_names(cls, queryset, add_unresolved):
        end, dependencies = _looked_up(node, name)
        yield from dependencies if end is None else end.key


def _filter_names(cls: Any, queryset: Any, add_unresolved: Callable[[str], None]) -> Iterator[str]:
    for backend in getattr(cls, "filter_backends", ()):
        if hasattr(backend, "get_filterset_class"):
            filters = getattr(backend().get_filterset_class(cls, queryset), "base_filters", {})
            for name, each in filters.items():
                yield str(each.field_name)
                if getattr(each, "method", None) is not None:
                    add_unresolved(
                        f"The filter {name} of {cls.__name__} is a method: what it reads can't "
                        "be seen."
                    )
        elif hasattr(backend, "get_search_fields"):
            for name in getattr(cls, "search_fields", None) or ():
                yield name.lstrip(PREFIXES)


def _looked_up(node: PathNode, name: str) -> tuple[PathNode | None, tuple[Dependency, ...]]:
    """Return the node that a name leads to and its dependencies; for a column None and the column's."""
    for part in name.split("__"):
        relation = query_names(node.model).get(part)
        if relation is None:
            fields = kind_of(node.model, part)[1]
            return None, (node.value(fields[0]) if fields else node.row)
        node = node.follow(relation)
    return node, node.dependencies
