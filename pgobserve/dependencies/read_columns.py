"""The columns that a consumer reads: those that it shows, filters by and orders by."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import Col
from rest_framework.serializers import BaseSerializer, ListSerializer

from pgobserve.dependencies.dry_run import no_queries, samples
from pgobserve.dependencies.of_queryset import expressions
from pgobserve.dependencies.relations import concrete

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.db.models import Model

    Columns = Iterator[tuple[type[Model], str]]


def of_consumer(cls: Any) -> Columns:
    """Yield models and columns, as far as they are known without a client."""
    for queryset, serializer in samples(cls, lambda sentence: None):
        yield from _of_query(queryset)
        # What a serializer raises that looks at a client is no matter here.
        with suppress(Exception), no_queries():
            made = serializer() if isinstance(serializer, type) else serializer
            yield from [*_of_serializer(queryset.model, made, 8)]


def _of_query(queryset: Any) -> Columns:
    query = queryset.query
    for node in expressions(query):
        if isinstance(node, Col) and (column := node.target.column):
            yield concrete(node.target.model), column
    order = query.order_by or query.extra_order_by or query.get_meta().ordering
    for entry in order if query.default_ordering or query.order_by else ():
        if isinstance(entry, str):
            yield from _along(queryset.model, entry.lstrip("-+").split(LOOKUP_SEP))


def _of_serializer(model: Any, serializer: Any, levels: int) -> Columns:
    """Yield the columns of a serializer's fields and nested serializers; up to so many levels."""
    if isinstance(serializer, ListSerializer):
        serializer = serializer.child
    for field in getattr(serializer, "fields", {}).values() if levels else ():
        if field.write_only or field.source == "*":
            continue
        names = field.source.split(".")
        yield from _along(model, names)
        if isinstance(field, BaseSerializer) and (end := _end(model, names)) is not None:
            yield from _of_serializer(end, field, levels - 1)


def _along(model: Any, names: Iterable[str]) -> Columns:
    """Yield the columns that a dotted name reads."""
    for name in names:
        field = _field(model, name)
        if field is None:
            return
        if getattr(field, "concrete", False) and field.column:
            yield concrete(field.model), field.column
        if field.related_model is None:
            return
        model = field.related_model


def _end(model: Any, names: Iterable[str]) -> Any:
    """Return the model at the end of a dotted name; None if it is none."""
    for name in names:
        model = getattr(_field(model, name), "related_model", None)
        if model is None:
            return None
    return model


def _field(model: Any, name: str) -> Any:
    options = model._meta
    found = [
        each
        for each in options.get_fields()
        if name in (each.name, getattr(each, "attname", None))
        or (hasattr(each, "get_accessor_name") and name == each.get_accessor_name())
    ]
    return options.pk if name == "pk" else next(iter(found), None)
