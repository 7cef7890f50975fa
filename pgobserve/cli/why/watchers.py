"""Who watches a table, and how: consumers with subscriptions, and observers of events."""

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
    """How a table matters to who watches."""

    OWN = "own"
    PART = "part"
    LINK = "link"
    WIDE = "wide"
    EVENTS = "events"


@dataclass(frozen=True, slots=True)
class Way:
    """
    A way by which changes of a table concern somebody.

    Attributes:
        name: Dotted, of the consumer's class or the observer's method.
        kind: How.
        consumer: The class; None of an observer.
        root: Whose rows are watched; None of an observer.
        path: How the table's rows belong to those.
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
            return f"rows of {root}, which are all read again at each change"
        back = f"by {self.path.column} in the change" if self.path.column else "by key"
        return f"as {path_of(self.path)} of rows of {root}, which are found {back}"


def of_table(model: type[Model]) -> list[Way]:
    """Return the ways by which changes of the table of a model concern somebody."""
    ways = [way for each in consumer_registry.consumers() for way in _of_consumer(each, model)]
    return [*ways, *_of_observers(model)]


def unresolved() -> dict[str, tuple[str, ...]]:
    """Return what of consumers' dependencies can't be seen, by the consumer's dotted name."""
    return {
        dotted(cls): found.unresolved
        for cls, found in consumer_registry.dependencies().items()
        if found.unresolved
    }


def dotted(what: Any) -> str:
    """Return the dotted name of a class or of a method's observer."""
    return f"{what.__module__}.{what.__qualname__}"


def _of_consumer(cls: Any, model: type[Model]) -> Iterator[Way]:
    root, table = declared_model(cls), model._meta.db_table
    if root is None or not cls.observed_models():
        return
    name, (keyed, full_refresh) = dotted(cls), tables_of(root)
    if table == keyed[0]:
        yield Way(name, WatcherKind.OWN, cls, root)
    elif table in keyed:
        yield Way(name, WatcherKind.PART, cls, root)
    found: Dependencies = cls.observed_dependencies()
    for path in found.paths:
        if path.table == table:
            yield Way(name, WatcherKind.LINK, cls, root, path)
    if table in (*full_refresh, *(each._meta.db_table for each in found.full_refresh)):
        yield Way(name, WatcherKind.WIDE, cls, root)


def _of_observers(model: type[Model]) -> Iterator[Way]:
    names = {dotted(each) for each in consumer_registry.observers() if model in each.evented_models}
    for name in sorted(names):
        yield Way(name, WatcherKind.EVENTS)
