"""Whether a row changed since a token: the part of resuming that only the database can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connections

from pgobserve.feed.snapshot import Snapshot
from pgobserve.feed.tables import tables_of

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pgobserve.observer.source import Source

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
    if statement.joins or len(keyed) + len(wide) > 1:
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


def parse_token(value: Any) -> Snapshot:
    """
    Read a client's token.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, str):
        raise ValueError("not a token")  # noqa: TRY004 (one error for all that is wrong)
    return Snapshot.parse(value)
