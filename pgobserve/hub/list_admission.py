"""Letting those have a list who waited for it: as it is, or from what they have on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve.hub.list_state import mark_key
from pgobserve.hub.send_queue import (
    ABSENT,
    NOTHING,
    UNTOLD,
    Refusal,
    step,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from pgobserve.hub.list_state import ListState
    from pgobserve.hub.list_subscription import ListSubscription
    from pgobserve.hub.send_queue import Outcome, View
    from pgobserve.hub.snapshot import Snapshot


def admit(
    roster: ListState,
    watch: ListSubscription,
    found: Iterable[tuple[Hashable, Outcome]],
    snapshot: Snapshot,
) -> list[str]:
    """
    Let one have the list who waited for it.

    Args:
        roster: The list.
        watch: The subscription.
        found: All rows, as he may see them; the roster knows them already.
        snapshot: In which they were read.

    Returns:
        JSON of the rows, in their order.
    """
    has, watch.has = watch.has, None
    watch.refused.clear()
    remaining = {} if has is None else dict(has)
    bodies, has_it_all = [], True
    for key, outcome in found:
        had = remaining.pop(key, NOTHING)
        now, kind = step(had, outcome)
        if now != roster.shown.get(key, NOTHING):
            watch.special[key] = now
        mark_key(watch.refused, key, isinstance(outcome, Refusal) and key not in roster.refused)
        if has is None and not isinstance(outcome, Refusal):
            if outcome.body is not None:
                bodies.append(outcome.body)
        elif kind is not None or had == UNTOLD:
            has_it_all = False
            watch.put(key, had, outcome, snapshot, kind)
    for key, had in remaining.items():
        has_it_all = False
        watch.put(key, had, ABSENT, snapshot)
    if has is None or has_it_all:
        watch.told, watch.told_of = snapshot, roster.identity
    roster.join(watch)
    return bodies


def admit_returning(
    roster: ListState, watch: ListSubscription, views: Mapping[Hashable, View], snapshot: Snapshot
) -> None:
    """
    Let one have the list who has some of it already, and sees what all see.

    Args:
        roster: The list.
        watch: The subscription; it has what it has.
        views: All rows; the roster knows them already.
        snapshot: In which they were read.
    """
    has, watch.has = watch.has or {}, None
    watch.refused.clear()
    gone, has_it_all = has.keys() - views.keys(), True
    for key, view in views.items():
        had = has.get(key, NOTHING)
        if had != view.digest:
            has_it_all = False
            watch.put(key, had, view, snapshot)
    for key in gone:
        watch.put(key, has[key], ABSENT, snapshot)
    if has_it_all and not gone:
        watch.told, watch.told_of = snapshot, roster.identity
    roster.join(watch)


def admit_as_others(roster: ListState, watch: ListSubscription, snapshot: Snapshot) -> None:
    """Let one have the list who waited for it and sees what all see."""
    watch.told, watch.told_of = snapshot, roster.identity
    roster.join(watch)
