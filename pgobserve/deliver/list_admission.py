"""How a waiting subscription receives a list: whole, or as the difference to the rows that it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve.hub.list_subscription import SnapshotRow
from pgobserve.hub.outcome import ABSENT, NOTHING, UNTOLD, Refusal, View, step

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from pgobserve.hub.list_state import ListState
    from pgobserve.hub.list_subscription import ListSubscription, Shown
    from pgobserve.hub.outcome import Outcome

    #: A row that differs: its key, the digest that the client holds, the current view.
    Difference = tuple[Hashable, bytes | None, View]


def admit(
    state: ListState,
    subscription: ListSubscription,
    outcomes: Iterable[tuple[Hashable, Outcome]],
    *,
    claimed: bool = False,
) -> list[SnapshotRow]:
    """
    Add a subscription whose rows may look different from those of other subscriptions.

    Args:
        state: The list.
        subscription: The subscription.
        outcomes: All rows, as the subscriber may see them; the list's state has them already.
        claimed: Whether the client itself claims what the subscription holds. A row that can't be shown
            then counts as missing, unless the client is known to be allowed to see it.

    Returns:
        The rows in their order, for a subscription that holds nothing.
    """
    has, subscription.has = subscription.has, None
    held = has or {}
    rows, seen = [], set()
    for key, result in outcomes:
        outcome = _without_hint(result) if claimed else result
        had = held.get(key, NOTHING)
        now, kind = step(had, outcome)
        if now != state.shown.get(key, NOTHING):
            subscription.special[key] = now
        if isinstance(outcome, View):
            if outcome.body is None:
                continue
            if has is None:
                rows.append(SnapshotRow(key, outcome))
                continue
        seen.add(key)
        if kind is not None or had == UNTOLD:
            subscription.put(key, had, outcome, kind)
    # Hidden and missing rows together, in the client's order: for the client they look the same.
    for key, had in held.items():
        if key not in seen:
            subscription.put(key, had, ABSENT)
    state.join(subscription)
    return rows


def _without_hint(outcome: Outcome) -> Outcome:
    """Return an outcome that does not show whether a claimed row exists."""
    return ABSENT if isinstance(outcome, Refusal) and not outcome.named else outcome


def differences(held: Shown, views: Mapping[Hashable, View]) -> list[Difference]:
    """
    Return the difference between the rows that a client holds and the current rows.

    Args:
        held: The digests that the client holds, by key.
        views: The rows of the list.
    """
    changed: list[Difference] = [
        (key, held.get(key, NOTHING), view)
        for key, view in views.items()
        if held.get(key, NOTHING) != view.digest
    ]
    return changed + [(key, had, ABSENT) for key, had in held.items() if key not in views]


def admit_returning(
    state: ListState, subscription: ListSubscription, news: Iterable[Difference]
) -> None:
    """Add a subscription that holds some of the list, and sees the same rows as all others."""
    subscription.has = None
    for key, had, view in news:
        subscription.put(key, had, view)
    state.join(subscription)
