"""Links in the words in which the ORM has them, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve.dependencies.relations import relations_of

if TYPE_CHECKING:
    from pgobserve.sql.keys import Model
    from pgobserve.sql.relation_path import Join, RelationPath


def path_of(link: RelationPath) -> str:
    """
    Return the path of a link, like ``author.publisher``.

    The table between many and many has the path of the many-to-many field; a table that no relation
    leads to, as a subquery may have it, stands with its model's label in parentheses.
    """
    names: list[str] = []
    model, hops = link.root, link.hops
    while hops:
        name, length = _first(model, hops)
        names.append(name)
        model, hops = hops[length - 1].model, hops[length:]
    return ".".join(names)


def _first(model: Model, hops: tuple[Join, ...]) -> tuple[str, int]:
    """Return the name of the longest relation that the joins begin with, and how many it has."""
    best, part = ("", 0), ("", 0)
    for relation in relations_of(model).values():
        joins = tuple(hop for hop, _ in relation.joins)
        if hops[: len(joins)] == joins:
            best = max(best, (relation.name, len(joins)), key=lambda each: each[1])
        elif joins[: len(hops)] == hops:
            part = (relation.name, len(hops))
    if best[1]:
        return best
    return part if part[1] else (f"({hops[0].model._meta.label})", 1)
