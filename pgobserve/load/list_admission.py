"""How a subscription receives a list that it waited for: whole, or as the difference to what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve.hub.list_subscription import SnapshotRow
from pgobserve.hub.outcome import ABSENT, NOTHING, UNTOLD, Refusal, View, step

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from pgobserve.hub.list_state import ListState
    from pgobserve.hub.list_subscription import ListSubscription, Shown
    from pgobserve.hub.outcome import Outcome

    #: A row that differs: its key, the digest of what the client holds, what is true now.
    Difference = tuple[Hashable, bytes | None, View]


def admit(
    roster: ListState,
    watch: ListSubscription,
    found: Iterable[tuple[Hashable, Outcome]],
    *,
    claimed: bool = False,
) -> list[SnapshotRow]:
    """
    Add a subscription whose rows may look different from those of others.

    Args:
        roster: The list.
        watch: The subscription.
        found: All rows, as the subscription may see them; the roster knows them already.
        claimed: What the subscription holds is the client's own claim. A row that can't be shown
            then counts as missing unless the client is known to be allowed to see it.

    Returns:
        The rows in their order, for a subscription that holds nothing.
    """
    has, watch.has = watch.has, None
    held = has or {}
    listed, seen = [], set()
    for key, found_of_it in found:
        outcome = _answered(found_of_it) if claimed else found_of_it
        had = held.get(key, NOTHING)
        now, kind = step(had, outcome)
        if now != roster.shown.get(key, NOTHING):
            watch.special[key] = now
        if isinstance(outcome, View):
            if outcome.body is None:
                continue
            if has is None:
                listed.append(SnapshotRow(key, outcome))
                continue
        seen.add(key)
        if kind is not None or had == UNTOLD:
            watch.put(key, had, outcome, kind)
    # Rows that are hidden and rows that are not there, in the client's order: it can't tell them apart.
    for key, had in held.items():
        if key not in seen:
            watch.put(key, had, ABSENT)
    roster.join(watch)
    return listed


def _answered(outcome: Outcome) -> Outcome:
    """Return a row as a client may know of it that claims to hold it."""
    return ABSENT if isinstance(outcome, Refusal) and not outcome.named else outcome


def differences(held: Shown, views: Mapping[Hashable, View]) -> list[Difference]:
    """
    Return what leads from the rows that a client holds to those that there are.

    Args:
        held: Digests of what the client holds, by key.
        views: The rows of the list.
    """
    found: list[Difference] = [
        (key, held.get(key, NOTHING), view)
        for key, view in views.items()
        if held.get(key, NOTHING) != view.digest
    ]
    found += [(key, had, ABSENT) for key, had in held.items() if key not in views]
    return found


def admit_returning(
    roster: ListState, watch: ListSubscription, found: Iterable[Difference]
) -> None:
    """Add a subscription that holds some of the list, and sees what all see."""
    watch.has = None
    for key, had, view in found:
        watch.put(key, had, view)
    roster.join(watch)
