"""The field that names rows to clients: the primary key, or a consumer's ``lookup_field``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgobserve.hub.identity import key_text

if TYPE_CHECKING:
    from django.db.models import Model

    from pgobserve.generics import GenericAsyncAPIConsumer


def lookup_of(consumer: GenericAsyncAPIConsumer, model: type[Model]) -> str | None:
    """Return the field that names a consumer's rows; None if that is the primary key."""
    key: Any = model._meta.pk
    name = consumer.lookup_field
    return None if name in ("pk", key.name, key.attname) else name


def value_of(instance: Model, lookup: str) -> Any:
    """Return the value of an instance's lookup; None if a related row is missing."""
    value: Any = instance
    for name in lookup.split("__"):
        value = getattr(value, name, None)
    return value


def name_of(instance: Model, lookup: str) -> str:
    """Return the text by which frames name an instance."""
    return key_text(value_of(instance, lookup))
