"""What an attribute of a model is, and which relations code mentions."""

from __future__ import annotations

from enum import Enum
from inspect import getattr_static
from types import CodeType
from typing import TYPE_CHECKING, Any

from django.core.exceptions import FieldDoesNotExist
from django.utils.functional import cached_property

from pgobserve.dependencies.relations import is_generic, relations_of
from pgobserve.sql.keys import key_fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import Field

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
