"""Which subscriptions of a list receive a frame about a row that a load has read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgobserve.hub.outcome import NOTHING, UNKNOWN, UNTOLD, Refusal, step

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

    from pgobserve.hub.list_state import ListState
    from pgobserve.hub.list_subscription import ListSubscription, Subscription
    from pgobserve.hub.outcome import FrameAction, Outcome

    #: Subscriptions, what their clients hold of the row, the outcome, and the frame that leads there.
    #: A frame of None is worked out when it is sent.
    Delivery = tuple[Sequence[ListSubscription], bytes | None, Outcome, FrameAction | None]


@dataclass(slots=True)
class ListRowChange:
    """
    What a load found of a row of a list.

    Attributes:
        key: The row's key on the list.
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
        state: The list.
        change: What a load found.
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
