"""Tables that consumers read and whose changes no feed of theirs can see, with the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import router

from pgobserve.dependencies.relations import relations_of
from pgobserve.install import consumer_registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.db.models import Model

    from pgobserve.dependencies.gathering import Dependencies
    from pgobserve.sql.relation_path import Join, RelationPath


def of(using: str) -> Iterator[str]:
    """Yield a sentence for each such table of the consumers whose rows are in a database."""
    for cls, found in consumer_registry.dependencies().items():
        models = cls.observed_models()  # type: ignore[attr-defined]
        if models and router.db_for_write(models[0]) == using:
            yield from of_consumer(f"{cls.__module__}.{cls.__qualname__}", found)


def of_consumer(name: str, found: Dependencies) -> Iterator[str]:
    """Yield the sentences for a consumer."""
    for each in found.foreign:
        yield f"{name}: {each}"
    for path in found.paths:
        yield from elsewhere(name, [path], router.db_for_write(path.root))


def elsewhere(name: str, paths: Iterable[RelationPath], using: str) -> Iterator[str]:
    """Yield a sentence for each path that leads into another database than the rows are in."""
    for path in paths:
        model = path.joins[-1].model
        if is_elsewhere(model, using):
            text = path_of(path)
            yield (
                f"{name} shows {text}: rows of {model._meta.label}, which are in the database "
                f"{router.db_for_write(model)!r}. The feed of {using!r} can't see their changes. Leave "
                f'them out with observe_related = ["-{text}"]: they are then shown as they are when '
                "the row itself changes."
            )


def is_elsewhere(model: type[Model], using: str) -> bool:
    """Return whether a model's table is in another database."""
    return router.db_for_write(model) != using and not router.allow_migrate_model(using, model)


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


def _first(model: type[Model], joins: tuple[Join, ...]) -> tuple[str, int]:
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
