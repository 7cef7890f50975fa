"""The tables of many-to-many fields, seen from one side."""

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
    A table between many and many, seen from one side.

    Attributes:
        name: Of the many-to-many field.
        model: Of its rows.
        attname: Where such a row has the value that names its owner.
        target: Where the owner has that value.
    """

    name: str
    model: type[Model]
    attname: str
    target: str

    def path_from(self, root: type[Model]) -> RelationPath:
        """Return the way from its owner to its rows."""
        owner: Any = root._meta.get_field(self.target)
        named: Any = self.model._meta.get_field(self.attname)
        return RelationPath(root, (Join(self.model, ((owner, named),)),), named)


def throughs_of(model: type[Model]) -> Iterable[Through]:
    """Yield the tables of a model's many-to-many fields."""
    for field in model._meta.many_to_many:
        through: Any = field.remote_field.through
        to_owner = through._meta.get_field(field.m2m_field_name())
        owner = to_owner.target_field.attname
        yield Through(field.name, canonical(through), to_owner.attname, owner)
