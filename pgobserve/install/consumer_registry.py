"""The consumer classes and model observers that exist, and the models that they observe."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from pgobserve.dependencies import read_columns as columns
from pgobserve.sql.columns import server_name
from pgobserve.triggers.registry import canonical

if TYPE_CHECKING:
    from collections.abc import Collection

    from django.db.models import Model

    from pgobserve.dependencies.gathering import Dependencies

    class Evented(Protocol):
        """An observer of events."""

        @property
        def evented_models(self) -> Collection[type[Model]]:
            """The models whose tables must write to the outbox."""


_consumers: WeakSet[type] = WeakSet()
_observers: WeakSet[Evented] = WeakSet()

#: Held to add and to copy: a thread may import consumers while another one iterates.
_lock = threading.Lock()


def observe(consumer_class: type) -> None:
    """Register a consumer class; its ``observed_models()`` is called when needed."""
    with _lock:
        _consumers.add(consumer_class)


def observe_events(observer: Evented) -> None:
    """Register an observer of events; its ``evented_models`` are read when needed."""
    with _lock:
        _observers.add(observer)


def consumers() -> list[type]:
    with _lock:
        found = list(_consumers)
    return sorted(found, key=lambda each: (each.__module__, each.__qualname__))


def dependencies() -> dict[type, Dependencies]:
    """Return the ``observed_dependencies()`` of each consumer class."""
    return {
        each: each.observed_dependencies()
        for each in consumers()
        if hasattr(each, "observed_dependencies")
    }


def observed_models() -> list[type[Model]]:
    """Return the models that consumers and observers observe or depend on."""
    models = {model for each in consumers() for model in each.observed_models()}  # type: ignore[attr-defined]
    for each in dependencies().values():
        models.update(map(canonical, each.full_refresh))
        models.update(canonical(join.model) for path in each.paths for join in path.joins)
    return sorted(models | {*evented_models()}, key=lambda model: model._meta.label_lower)


def observed_routes() -> dict[type[Model], frozenset[str]]:
    """Return the columns of each model whose old and new values its changes must carry."""
    routes: defaultdict[type[Model], set[str]] = defaultdict(set)
    for each in dependencies().values():
        for path in each.paths:
            if path.column is not None:
                routes[canonical(path.joins[-1].model)].add(path.column)
    return {model: frozenset(columns) for model, columns in routes.items()}


def declared_tables() -> dict[type[Model], frozenset[str]]:
    """Return, by model, the tables whose changes concern all rows of each consumer that depends on it."""
    found: dict[type[Model], frozenset[str]] = {}
    for cls, each in dependencies().items():
        declared = frozenset(server_name(model._meta.db_table) for model in each.full_refresh)
        joined = (join.model for path in each.paths for join in path.joins)
        for model in {*map(canonical, (*cls.observed_models(), *joined))}:  # type: ignore[attr-defined]
            found[model] = found.get(model, declared) & declared
    return found


def read_columns() -> dict[type[Model], dict[str, set[str]]]:
    """Return the names of the consumers that read a column, by model and column."""
    found: dict[type[Model], dict[str, set[str]]] = {}
    for cls in consumers():
        for model, column in columns.of_consumer(cls):
            readers = found.setdefault(canonical(model), {}).setdefault(column, set())
            readers.add(f"{cls.__module__}.{cls.__qualname__}")
    return found


def observers() -> list[Evented]:
    with _lock:
        return list(_observers)


def evented_models() -> list[type[Model]]:
    """Return the models with observers of events, whose changes must go to the outbox."""
    models = {model for each in observers() for model in each.evented_models}
    return sorted(models, key=lambda model: model._meta.label_lower)
