"""Through tables of many-to-many fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgobserve.sql.relation_path import Join, RelationPath
from pgobserve.triggers.registry import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import Model


@dataclass(frozen=True, slots=True)
class Through:
    """
    A many-to-many field's through table, seen from the field's model.

    Attributes:
        name: The field's name.
        model: The through model.
        attname: The through model's attribute that refers to the owner.
        target: The owner's attribute that it refers to.
    """

    name: str
    model: type[Model]
    attname: str
    target: str

    def path_from(self, root: type[Model]) -> RelationPath:
        """Return the path from the owner to the through table."""
        target: Any = root._meta.get_field(self.target)
        source: Any = self.model._meta.get_field(self.attname)
        return RelationPath(root, (Join(self.model, ((target, source),)),), source)


def throughs_of(model: type[Model]) -> Iterable[Through]:
    """Yield the through tables of a model's many-to-many fields."""
    for field in model._meta.many_to_many:
        through: Any = field.remote_field.through
        to_owner = through._meta.get_field(field.m2m_field_name())
        owner = to_owner.target_field.attname
        yield Through(field.name, canonical(through), to_owner.attname, owner)
