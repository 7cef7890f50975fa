"""Tokens: what a client has seen, as it comes back with it; neither secret nor a capability."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pgobserve.hub.snapshot import MAX_TEXT, Snapshot
from pgobserve.sql.keys import to_keys

if TYPE_CHECKING:
    from collections.abc import Collection

    from pgobserve.sql.keys import Model

#: Between the snapshot and the fingerprint in a list's tokens.
FINGERPRINT: Final = "~"

_FINGERPRINT_FORM: Final = re.compile(r"[0-9a-f]{8,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Back:
    """
    What a client says who comes back to a list.

    Attributes:
        seen: All that is visible in it he has seen, and maybe more.
        fingerprint: Which list it was, and how its rows looked.
        keys: Of the rows that he has, as JSON has them until :meth:`of`; None if he does not say.
    """

    seen: Snapshot
    fingerprint: str
    keys: Collection[Any] | None

    @property
    def token(self) -> str:
        """The token that he came with."""
        return f"{self.seen}{FINGERPRINT}{self.fingerprint}"

    def of(self, model: Model) -> Back:
        """
        Return the same with keys as rows of a model have them.

        Raises:
            ValueError: No row can have one of them.
        """
        if self.keys is None:
            return self
        return replace(self, keys=to_keys(model, self.keys))


def parse_list_token(value: Any) -> tuple[Snapshot, str]:
    """
    Read a client's token of a list: a snapshot, and what identifies the list.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, str) or len(value) > 2 * MAX_TEXT:
        raise ValueError("not a token")
    snapshot, mark, fingerprint = value.partition(FINGERPRINT)
    if not mark or not _FINGERPRINT_FORM.fullmatch(fingerprint):
        raise ValueError("not a token of a list")
    return Snapshot.parse(snapshot), fingerprint


def parse_token(value: Any) -> Snapshot:
    """
    Read a client's token of a row.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, str):
        raise ValueError("not a token")  # noqa: TRY004 (one error for all that is wrong)
    return Snapshot.parse(value)
