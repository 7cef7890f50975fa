"""What changed since a token: the part of resuming that only the database can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.db import connections

from pgobserve.feed.mailbox import UNKNOWN, View
from pgobserve.feed.snapshot import Snapshot
from pgobserve.feed.tables import tables_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from pgobserve.feed.mailbox import Outcome
    from pgobserve.observer.source import Source

#: Between the snapshot and the fingerprint in a list's tokens.
FINGERPRINT: Final = "~"

_WRAP = 2**32

#: Transaction ids below are special: the row is older than any snapshot.
_FIRST_NORMAL = 3


def changed_since(source: Source, key: Hashable, token: Snapshot) -> bool:
    """
    Tell whether a row may have changed since a snapshot; when in doubt, it has.

    A row version carries the transaction that wrote it. That tells nothing about other tables that
    the serializer shows, so with joined or prefetched rows the answer is always yes.

    Args:
        source: Where the subscription's rows come from.
        key: The row's key.
        token: The client's snapshot; it may come from another server, or from nowhere.
    """
    statement = source.statement
    keyed, wide = tables_of(statement.model)
    if statement.joins or source.subject.links or len(keyed) + len(wide) > 1:
        return True
    found = statement.version(key, connections[source.alias])
    if found is None:
        return True
    version, now = found
    # Across runs of the server transaction ids mean nothing, see Snapshot.
    return token.run != now.run or not token.sees(_widen(version, now))


def _widen(xmin: int, now: Snapshot) -> int:
    """Return the 64-bit transaction id of a row's 32-bit ``xmin``: the latest that is not future."""
    if xmin < _FIRST_NORMAL:
        return 0
    wide = now.xmax - now.xmax % _WRAP + xmin
    return wide if wide < now.xmax else wide - _WRAP


@dataclass(frozen=True, slots=True)
class Back:
    """
    What a client says who comes back to a list.

    Attributes:
        seen: All that is visible in it he has seen.
        fingerprint: Which list it was, and how its rows looked.
        keys: Of the rows that he has; None if he does not say.
    """

    seen: Snapshot
    fingerprint: str
    keys: frozenset[Hashable] | None


def holdings(
    source: Source, back: Back, outcomes: Mapping[Hashable, Outcome], now: Snapshot
) -> dict[Hashable, bytes | None] | None:
    """
    Return what a client has who comes back to a list, as digests.

    Args:
        source: Where the rows come from.
        back: What he says.
        outcomes: The rows as he may see them now.
        now: In which they were read; the transaction is still the same.

    Returns:
        By key what he has: the digest of today's view, or "not known". None if it can't be told.
    """
    listing = source.listing
    if back.keys is None or listing is None or back.fingerprint != listing.fingerprint:
        return None
    if back.seen.run != now.run or not now.covers(back.seen) or source.subject.links:
        return None
    there = [key for key in back.keys if isinstance(outcomes.get(key), View)]
    changed = set() if listing.only == "keys" else _changed(source, there, back.seen, now)
    return {
        key: UNKNOWN if key not in outcomes or key in changed else _digest(outcomes[key])
        for key in back.keys
    }


def _digest(outcome: Outcome) -> bytes | None:
    return outcome.digest or UNKNOWN if isinstance(outcome, View) else UNKNOWN


def _changed(
    source: Source, keys: Sequence[Hashable], seen: Snapshot, now: Snapshot
) -> set[Hashable]:
    versions = source.statement.versions(keys, connections[source.alias])
    return {key for key, version in versions if not seen.sees(_widen(version, now))}


def parse_list_token(value: Any) -> tuple[Snapshot, str]:
    """
    Read a client's token of a list: a snapshot, and what identifies the list.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, str):
        raise ValueError("not a token")  # noqa: TRY004 (one error for all that is wrong)
    snapshot, mark, fingerprint = value.partition(FINGERPRINT)
    if not mark or not fingerprint.isalnum():
        raise ValueError("not a token of a list")
    return Snapshot.parse(snapshot), fingerprint


def parse_token(value: Any) -> Snapshot:
    """
    Read a client's token.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, str):
        raise ValueError("not a token")  # noqa: TRY004 (one error for all that is wrong)
    return Snapshot.parse(value)
