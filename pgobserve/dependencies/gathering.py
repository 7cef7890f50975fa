"""Collects what must be watched besides a model's own rows."""

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
    What a model's watched rows depend on besides themselves.

    Attributes:
        paths: Paths to other tables, the shortest first.
        full_refresh: Models of tables where any change affects all watched rows.
        unresolved: Sentences about code that could not be followed.
        foreign: Sentences about tables without a model.
    """

    paths: tuple[RelationPath, ...] = ()
    full_refresh: tuple[type[Model], ...] = ()
    unresolved: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.paths or self.full_refresh or self.unresolved or self.foreign)


class Gathering:
    """Collects dependencies in any order, duplicates included."""

    def __init__(self, *given: Dependencies) -> None:
        self._needs: dict[Dependency, None] = {}
        self._unresolved: dict[str, None] = {}
        self._foreign: dict[str, None] = {}
        for each in given:
            self.include(each)

    def include(self, given: Dependencies) -> None:
        """Add everything of a result."""
        self.add((*given.paths, *given.full_refresh))
        self._unresolved |= dict.fromkeys(given.unresolved)
        self._foreign |= dict.fromkeys(given.foreign)

    def add(self, dependencies: Iterable[Dependency]) -> None:
        """Add paths, and models for a full refresh."""
        self._needs |= dict.fromkeys(dependencies)

    def add_unresolved(self, sentence: str) -> None:
        """Add a sentence about code that can't be followed."""
        self._unresolved[sentence] = None

    def add_foreign(self, sentence: str) -> None:
        """Add a sentence about a table without a model."""
        self._foreign[sentence] = None

    def add_at(self, node: PathNode, inner: Dependencies) -> None:
        """Add the dependencies of related rows, with paths from the watched rows."""
        for path in inner.paths:
            self._needs[replace(path, root=node.root, joins=node.joins + path.joins)] = None
        self.add(inner.full_refresh)
        self._unresolved |= dict.fromkeys(inner.unresolved)

    @property
    def paths(self) -> list[RelationPath]:
        """The paths so far."""
        return [each for each in self._needs if isinstance(each, RelationPath)]

    def made(self) -> Dependencies:
        """Return everything once, in a stable order; equal results are the same object."""
        full_refresh = {
            concrete(each) for each in self._needs if not isinstance(each, RelationPath)
        }
        tables = {each._meta.db_table for each in full_refresh}
        paths = [each for each in self.paths if each.table not in tables and not _is_own(each)]
        result = Dependencies(
            tuple(sorted(paths, key=_order)),
            tuple(sorted(full_refresh, key=lambda each: each._meta.label_lower)),
            tuple(sorted(self._unresolved)),
            tuple(sorted(self._foreign)),
        )
        return _known.setdefault(result, result)


_known: dict[Dependencies, Dependencies] = {}


def _is_own(path: RelationPath) -> bool:
    """Return whether a path leads to the row itself, or to its part in a parent's table."""
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
