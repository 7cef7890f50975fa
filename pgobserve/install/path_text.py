"""Relation paths as the ORM spells them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve.dependencies.relations import relations_of

if TYPE_CHECKING:
    from pgobserve.sql.keys import Model
    from pgobserve.sql.relation_path import Join, RelationPath


def path_of(path: RelationPath) -> str:
    """
    Return the text of a path, like ``author.publisher``.

    A through table has the path of its many-to-many field. A table that no relation reaches, such
    as a subquery's, appears as its model's label in parentheses.
    """
    names: list[str] = []
    model, joins = path.root, path.joins
    while joins:
        name, length = _first(model, joins)
        names.append(name)
        model, joins = joins[length - 1].model, joins[length:]
    return ".".join(names)


def _first(model: Model, joins: tuple[Join, ...]) -> tuple[str, int]:
    """Return the name of the longest relation that the joins start with, and its number of joins."""
    best, part = ("", 0), ("", 0)
    for relation in relations_of(model).values():
        own = tuple(join for join, _ in relation.joins)
        if joins[: len(own)] == own:
            best = max(best, (relation.name, len(own)), key=lambda each: each[1])
        elif own[: len(joins)] == joins:
            part = (relation.name, len(joins))
    if best[1]:
        return best
    return part if part[1] else (f"({joins[0].model._meta.label})", 1)
