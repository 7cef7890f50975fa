"""What must be watched beside a model's own rows, and how it is put together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgobserve.dependencies.relations import concrete, join_along
from pgobserve.sql.relation_path import RelationPath

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import Model

    from pgobserve.dependencies.relations import Dependency, PathNode


@dataclass(frozen=True, slots=True)
class Dependencies:
    """
    What the watched rows of a model depend on, beside those rows themselves.

    Attributes:
        paths: The ways to other tables, the shortest first.
        full_refresh: Models of tables of which any change concerns all watched rows.
        unresolved: What could not be followed, in sentences.
    """

    paths: tuple[RelationPath, ...] = ()
    full_refresh: tuple[type[Model], ...] = ()
    unresolved: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.paths or self.full_refresh or self.unresolved)


class Gathering:
    """Collects what must be watched, in any order and as often as it is found."""

    def __init__(self, *given: Dependencies) -> None:
        self._needs: dict[Dependency, None] = {}
        self._unresolved: dict[str, None] = {}
        for each in given:
            self.include(each)

    def include(self, given: Dependencies) -> None:
        """Add all that was found before."""
        self.add((*given.paths, *given.full_refresh))
        self._unresolved |= dict.fromkeys(given.unresolved)

    def add(self, dependencies: Iterable[Dependency]) -> None:
        """Add links and models."""
        self._needs |= dict.fromkeys(dependencies)

    def add_unresolved(self, sentence: str) -> None:
        """Add a sentence about something that can't be followed."""
        self._unresolved[sentence] = None

    def add_at(self, node: PathNode, inner: Dependencies) -> None:
        """Add what related rows depend on, seen from the watched ones."""
        for path in inner.paths:
            self._needs[replace(path, root=node.root, joins=node.joins + path.joins)] = None
        self.add(inner.full_refresh)
        self._unresolved |= dict.fromkeys(inner.unresolved)

    @property
    def paths(self) -> list[RelationPath]:
        """The links that were found until now."""
        return [each for each in self._needs if isinstance(each, RelationPath)]

    def made(self) -> Dependencies:
        """Return all of it, each once and in a stable order; equal ones are the same object."""
        full_refresh = {
            concrete(each) for each in self._needs if not isinstance(each, RelationPath)
        }
        tables = {each._meta.db_table for each in full_refresh}
        paths = [each for each in self.paths if each.table not in tables and not _is_own(each)]
        made = Dependencies(
            tuple(sorted(paths, key=_order)),
            tuple(sorted(full_refresh, key=lambda each: each._meta.label_lower)),
            tuple(sorted(self._unresolved)),
        )
        return _known.setdefault(made, made)


_known: dict[Dependencies, Dependencies] = {}


def _is_own(path: RelationPath) -> bool:
    """Tell whether a link only leads to the row itself, or to its part in a parent's table."""
    options = path.root._meta
    if all(source == target for join in path.joins for source, target in join.on):
        return path.route is None and all(join.model is path.root for join in path.joins)
    return any(
        path.joins
        == tuple(join_along(info.join_field) for info in options.get_path_to_parent(parent))
        for parent in options.get_parent_list()
    )


def _order(path: RelationPath) -> tuple[object, ...]:
    on = tuple(
        (join.model._meta.label_lower, *((source.name, target.name) for source, target in join.on))
        for join in path.joins
    )
    return len(path.joins), on, path.column or ""
