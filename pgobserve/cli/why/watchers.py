"""Which consumers and model observers watch a table, and how."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pgobserve.install import consumer_registry
from pgobserve.install.path_text import path_of
from pgobserve.observer.consumer import declared_model
from pgobserve.sql.model_tables import tables_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import Model

    from pgobserve.dependencies.gathering import Dependencies
    from pgobserve.sql.relation_path import RelationPath


class WatcherKind(StrEnum):
    """How a watcher depends on a table."""

    OWN = "own"
    PART = "part"
    LINK = "link"
    WIDE = "wide"
    EVENTS = "events"


@dataclass(frozen=True, slots=True)
class Watcher:
    """
    A consumer class or a model observer that watches a table.

    Attributes:
        name: Dotted name of the class, or of the observer's method.
        kind: How it depends on the table.
        consumer: The class; None for an observer.
        root: The model of the watched rows; None for an observer.
        path: The path from the watched rows to the table's.
    """

    name: str
    kind: WatcherKind
    consumer: Any = None
    root: type[Model] | None = None
    path: RelationPath | None = None

    def __str__(self) -> str:
        root = self.root._meta.label if self.root is not None else ""
        if self.kind is WatcherKind.EVENTS:
            return "events, by a model_observer"
        if self.kind is WatcherKind.OWN:
            return f"rows of {root}, by key"
        if self.kind is WatcherKind.PART:
            return f"a part of rows of {root}, by key"
        if self.path is None:
            return f"rows of {root}, all read again at each change"
        resolved = f"by {self.path.column} in the change" if self.path.column else "by key"
        return f"as {path_of(self.path)} of rows of {root}, resolved {resolved}"


def of_table(model: type[Model]) -> list[Watcher]:
    """Return the watchers of a model's table."""
    consumers = [each for cls in consumer_registry.consumers() for each in _of_consumer(cls, model)]
    observers = consumer_registry.observers()
    names = {dotted(each) for each in observers if model in each.evented_models}
    return [*consumers, *(Watcher(name, WatcherKind.EVENTS) for name in sorted(names))]


def unresolved() -> dict[str, tuple[str, ...]]:
    """Return the dependencies that can't be determined, by the consumer's dotted name."""
    return {
        dotted(cls): found.unresolved
        for cls, found in consumer_registry.dependencies().items()
        if found.unresolved
    }


def dotted(what: Any) -> str:
    """Return the dotted name of a class or of a method's observer."""
    return f"{what.__module__}.{what.__qualname__}"


def _of_consumer(cls: Any, model: type[Model]) -> Iterator[Watcher]:
    root, table = declared_model(cls), model._meta.db_table
    if root is None or not cls.observed_models():
        return
    name, (keyed, full_refresh) = dotted(cls), tables_of(root)
    if table == keyed[0]:
        yield Watcher(name, WatcherKind.OWN, cls, root)
    elif table in keyed:
        yield Watcher(name, WatcherKind.PART, cls, root)
    found: Dependencies = cls.observed_dependencies()
    for path in found.paths:
        if path.table == table:
            yield Watcher(name, WatcherKind.LINK, cls, root, path)
    if table in (*full_refresh, *(each._meta.db_table for each in found.full_refresh)):
        yield Watcher(name, WatcherKind.WIDE, cls, root)
