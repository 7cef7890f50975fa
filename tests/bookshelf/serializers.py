"""Ways to show rows of the library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework import serializers

if TYPE_CHECKING:
    from django.db.models import Model


def shows(
    shown: type[Model], *names: str, depth: int = 0, **declared: Any
) -> type[serializers.ModelSerializer[Any]]:
    """
    Return a serializer class.

    Args:
        shown: The model.
        *names: Of the fields that the model gives.
        depth: As in ``Meta.depth``.
        **declared: Further fields; also methods and other attributes of the class.
    """
    fields = [name for name, each in declared.items() if isinstance(each, serializers.Field)]
    meta = type("Meta", (), {"model": shown, "fields": [*names, *fields], "depth": depth})
    return type(
        f"{shown.__name__}Serializer", (serializers.ModelSerializer,), {**declared, "Meta": meta}
    )
