"""What must be watched beside a model's own rows, and how it is put together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgobserve.dependencies.relations import concrete, hop_of
from pgobserve.sql.relation_path import RelationPath

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import Model

    from pgobserve.dependencies.relations import Need, PathNode


@dataclass(frozen=True, slots=True)
class Dependencies:
    """
    What the watched rows of a model depend on, beside those rows themselves.

    Attributes:
        links: The ways to other tables, the shortest first.
        wide: Models of tables of which any change concerns all watched rows.
        unseen: What could not be followed, in sentences.
    """

    links: tuple[RelationPath, ...] = ()
    wide: tuple[type[Model], ...] = ()
    unseen: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.links or self.wide or self.unseen)


class Gathering:
    """Collects what must be watched, in any order and as often as it is found."""

    def __init__(self, *given: Dependencies) -> None:
        self._needs: dict[Need, None] = {}
        self._unseen: dict[str, None] = {}
        for each in given:
            self.include(each)

    def include(self, given: Dependencies) -> None:
        """Add all that was found before."""
        self.add((*given.links, *given.wide))
        self._unseen |= dict.fromkeys(given.unseen)

    def add(self, needs: Iterable[Need]) -> None:
        """Add links and models."""
        self._needs |= dict.fromkeys(needs)

    def add_unseen(self, sentence: str) -> None:
        """Add a sentence about something that can't be followed."""
        self._unseen[sentence] = None

    def add_at(self, spot: PathNode, inner: Dependencies) -> None:
        """Add what related rows depend on, seen from the watched ones."""
        for link in inner.links:
            self._needs[replace(link, root=spot.root, hops=spot.hops + link.hops)] = None
        self.add(inner.wide)
        self._unseen |= dict.fromkeys(inner.unseen)

    @property
    def links(self) -> list[RelationPath]:
        """The links that were found until now."""
        return [each for each in self._needs if isinstance(each, RelationPath)]

    def made(self) -> Dependencies:
        """Return all of it, each once and in a stable order; equal ones are the same object."""
        wide = {concrete(each) for each in self._needs if not isinstance(each, RelationPath)}
        tables = {each._meta.db_table for each in wide}
        links = [each for each in self.links if each.table not in tables and not _is_own(each)]
        made = Dependencies(
            tuple(sorted(links, key=_order)),
            tuple(sorted(wide, key=lambda each: each._meta.label_lower)),
            tuple(sorted(self._unseen)),
        )
        return _known.setdefault(made, made)


_known: dict[Dependencies, Dependencies] = {}


def _is_own(link: RelationPath) -> bool:
    """Tell whether a link only leads to the row itself, or to its part in a parent's table."""
    options = link.root._meta
    if all(source == target for hop in link.hops for source, target in hop.on):
        return link.route is None and all(hop.model is link.root for hop in link.hops)
    return any(
        link.hops == tuple(hop_of(info.join_field) for info in options.get_path_to_parent(parent))
        for parent in options.get_parent_list()
    )


def _order(link: RelationPath) -> tuple[object, ...]:
    on = tuple(
        (hop.model._meta.label_lower, *((source.name, target.name) for source, target in hop.on))
        for hop in link.hops
    )
    return len(link.hops), on, link.column or ""
