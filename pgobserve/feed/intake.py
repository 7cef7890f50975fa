"""From what is heard to what is to be read: labels become tables, JSON becomes keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgobserve.feed.keys import to_key
from pgobserve.feed.tables import labels_of, model_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pgobserve.feed.change import Change
    from pgobserve.feed.hub import Hub


def publish(change: Change, hub: Hub, ignore: Callable[[str], object]) -> bool:
    """
    Mark what a change concerns.

    Args:
        change: As it was heard: anybody may have sent it.
        hub: What is watched.
        ignore: Called with the reason if it, or a key in it, is of no use.

    Returns:
        Whether it may concern anything.
    """
    model = model_of(change.label)
    if model is None:
        ignore(f"it speaks of {change.label[:80]!r}, which is no model here")
        return False
    table = model._meta.db_table
    if not hub.watches_table(table):
        return False
    keys = None if change.keys is None else _decoded(model, change.keys, ignore)
    hub.publish(table, change.xid, keys, change.routes)
    return True


def routes(hub: Hub) -> Mapping[str, Collection[str]]:
    """Return the columns whose values lead back to what is watched, by label."""
    found = hub.routes()
    return {label: found[table] for table in found for label in labels_of(table)}


def _decoded(model: Any, raw: Sequence[Any], ignore: Callable[[str], object]) -> list[Any]:
    keys = []
    for value in raw:
        try:
            keys.append(to_key(model, value))
        except ValueError as error:
            ignore(f"{value!r:.80} is no key of {model._meta.label}: {error}")
    return keys
