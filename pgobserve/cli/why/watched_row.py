"""A row, and whether it is one that somebody watches, for ``why``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.db import router

from pgobserve.cli.why.watchers import WatcherKind
from pgobserve.cohorts.cohort import alias_of
from pgobserve.errors import ConfigurationError
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.permissions import AllowAny
from pgobserve.sql.keys import key_fields, shown, to_key
from pgobserve.sql.reverse_lookup import resolve

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

    from pgobserve.cli.why.watchers import Way
    from pgobserve.sql.relation_path import RelationPath

#: How many rows are named that show another one.
SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """
    Whether a consumer watches a row.

    Attributes:
        watched: Whether it may; None if that depends.
        says: The same in words.
    """

    watched: bool | None
    says: str


def key_from(model: type[Model], text: str) -> Hashable:
    """
    Return the key that somebody has typed.

    Raises:
        ConfigurationError: No row can have it.
    """
    names = [field.name for field in key_fields(model)]
    try:
        return to_key(model, json.loads(text) if len(names) > 1 else text)
    except ValueError:
        shape = f" Write a JSON array of {', '.join(names)}." if len(names) > 1 else ""
        raise ConfigurationError(
            f"No row of {model._meta.label} can have the key {text!r}.{shape}"
        ) from None


def written(key: Hashable) -> str:
    """Return a key as it is typed."""
    return json.dumps(shown(key)) if isinstance(key, tuple) else str(key)


def exists(model: type[Model], key: Hashable, alias: str) -> bool:
    """Tell whether there is the row."""
    return bool(model._base_manager.using(alias).filter(pk=key).exists())


def elsewhere(way: Way) -> str | None:
    """Return the alias of the database that a consumer listens to and reads from."""
    if way.root is None:
        return None
    queryset = _declared(way.consumer)
    return router.db_for_write(way.root) if queryset is None else alias_of(queryset)


def seen_by(way: Way, key: Hashable, connection: BaseDatabaseWrapper) -> Seen:
    """Say whether a row is one that is watched, or belongs to one."""
    if way.path is not None:
        return _through(way.path, key, connection)
    if way.kind in (WatcherKind.OWN, WatcherKind.PART):
        return _in_queryset(way.consumer, key)
    return Seen(None, "")


def _declared(consumer: Any) -> Any:
    """Return the queryset that a class declares; None if only its instances have one, a property."""
    queryset = getattr(consumer, "queryset", None)
    return queryset if hasattr(queryset, "model") else None


def _in_queryset(consumer: Any, key: Hashable) -> Seen:
    queryset = _declared(consumer)
    if queryset is None:
        return Seen(None, "without a user it can't be told which rows get_queryset() returns")
    try:
        there = queryset.using(alias_of(queryset)).filter(pk=key).exists()
    except TypeError as error:  # a slice
        return Seen(None, f"whether the row is in its queryset can't be told ({error})")
    says = "the row is in its queryset" if there else "the row is not in its queryset"
    hooks = [*_deciding(consumer)]
    if not hooks:
        return Seen(there, says)
    depends = f"{says} as it is declared; for a client it depends on {' and '.join(hooks)}"
    # What is overridden may well return rows that the declared queryset lacks.
    return Seen(None if any("queryset" in each for each in hooks) else there, depends)


def _deciding(consumer: Any) -> Iterator[str]:
    """Yield what decides for each client whether he sees a row."""
    base = GenericAsyncAPIConsumer
    for name in ("get_queryset", "filter_queryset"):
        if getattr(consumer, name, None) is not getattr(base, name):
            yield f"{name}()"
    if getattr(consumer, "filter_backends", None):
        yield "filter_backends"
    if any(each is not AllowAny for each in getattr(consumer, "permission_classes", ())):
        yield "permission_classes"


def _through(path: RelationPath, key: Hashable, connection: BaseDatabaseWrapper) -> Seen:
    values: list[Any] = [key]
    if path.route is not None:
        rows = path.joins[-1].model._base_manager.using(connection.alias).filter(pk=key)
        values = list(rows.values_list(path.route.attname, flat=True))
    root = path.root._meta.label
    roots = resolve(path, values, connection, limit=SHOWN)
    if roots is None:
        return Seen(True, f"it belongs now to more than {SHOWN} rows of {root}")
    if not roots:
        return Seen(False, f"it belongs now to no row of {root}")
    return Seen(True, f"it belongs now to {root} {', '.join(map(written, roots))}")
