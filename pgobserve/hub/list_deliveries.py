"""Which subscriptions of a list receive a frame about a row that a load has read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgobserve.hub.outcome import ABSENT, NOTHING, UNKNOWN, UNTOLD, Refusal, View, step
from pgobserve.hub.subscriptions import SnapshotRow

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

    from pgobserve.hub.list_state import ListState
    from pgobserve.hub.outcome import FrameAction, Outcome
    from pgobserve.hub.subscriptions import ListSubscription, Shown, Subscription

    #: Subscriptions, what their clients hold of the row, the outcome, and the frame that leads there.
    #: A frame of None is worked out when it is sent.
    Delivery = tuple[Sequence[ListSubscription], bytes | None, Outcome, FrameAction | None]

    #: A row that differs: its key, the digest that the client holds, the current view.
    Difference = tuple[Hashable, bytes | None, View]


@dataclass(slots=True)
class ListRowChange:
    """
    What a load found of a row of a list.

    Attributes:
        outcome: The outcome for all subscriptions that are not in ``special``.
        special: The outcomes of the others.
        again: Whether the row is read again without a change. A client that has already received an
            error receives no second one.
        unread: Whether its query failed. A client without a copy then receives nothing: it may not be
            allowed to see the row.
        skipped: Subscriptions that receive nothing, because what they may see is not known.
    """

    key: Hashable
    outcome: Outcome
    special: Mapping[Subscription, Outcome] = field(default_factory=dict)
    again: bool = False
    unread: bool = False
    skipped: Collection[Subscription] = ()


def deliveries(
    state: ListState, change: ListRowChange, watches: Iterable[ListSubscription]
) -> Sequence[Delivery]:
    """
    Record what clients hold after a change of a row, and return the deliveries that lead there.

    The list counts each delivery as made, so the caller must make all of them. If a subscription has left
    the list by then, the caller gives it back what its client really holds.

    Args:
        watches: The subscriptions when the load started. Those that have left the list are ignored.
    """
    outcome, special, skipped = change.outcome, change.special, change.skipped
    before = state.shown.get(change.key, NOTHING)
    after, kind = _step(before, outcome, change.unread)
    state.record(change.key, after)
    alike = not special and not skipped
    silent = _is_silent(before, kind, change.again)
    shared: list[ListSubscription] = []
    due: list[Delivery] = [] if silent else [(shared, before, outcome, kind)]
    for watch in watches:
        if watch.roster is not state:
            continue
        if alike and not watch.special:
            shared.append(watch)
            continue
        had = watch.special.pop(change.key, before)
        if watch in skipped:
            now = had
        else:
            own = special.get(watch, outcome)
            now, own_kind = _step(had, own, change.unread)
            if not _is_silent(had, own_kind, change.again):
                due.append(((watch,), had, own, own_kind))
        if now != after:
            watch.special[change.key] = now
    return due


def _step(
    shown: bytes | None, outcome: Outcome, unread: bool
) -> tuple[bytes | None, FrameAction | None]:
    if unread and shown == NOTHING and isinstance(outcome, Refusal):
        return shown, None
    return step(shown, outcome)


def _is_silent(had: bytes | None, kind: FrameAction | None, again: bool) -> bool:
    """
    Return whether a client receives nothing.

    A client that has received an error for the row gets the new state in any case: the error may still wait
    in the queue, out of date.
    """
    if kind is None:
        return had != UNTOLD
    return again and kind == "error" and had in (UNKNOWN, UNTOLD)


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
        hints = claimed and isinstance(result, Refusal) and not result.named
        outcome = ABSENT if hints else result  # it must not show whether a claimed row exists
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


def differences(held: Shown, views: Mapping[Hashable, View]) -> list[Difference]:
    """
    Return the difference between the rows that a client holds and the current rows.

    Args:
        held: The digests that the client holds, by key.
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
