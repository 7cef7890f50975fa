"""
The rows that returning clients claim to hold of a list.

A claim needs no trust. The server sends a row unless its etag matches the row as the client may see it now,
so that a false claim misleads only the client that makes it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from pgobserve.hub.identity import digest_from
from pgobserve.sql.keys import ALIKE, collide, from_text

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from pgobserve.hub.list_subscription import Shown
    from pgobserve.sql.keys import Model

#: Most texts of keys that are kept for the other clients of a load.
MAX_KEPT_KEYS: Final = 20_000


class Holdings:
    """
    Reads the claims of several clients of one list.

    It does not matter whether a row is on the list: the answer must not show a client whether a row that it
    claims is hidden or does not exist.

    Args:
        model: The model of the list's rows; None if other fields than the primary key name them.
    """

    def __init__(self, model: Model | None) -> None:
        self._model = model
        self._keys: dict[str, Hashable] = {}
        # Clients that return together mostly hold the same rows.
        self._last: tuple[Mapping[str, str], Shown] | None = None

    def of(self, have: Mapping[str, str]) -> Shown:
        """
        Return digests by key, in the client's order; the same object for equal claims in a row.

        Args:
            have: Etags by the text of keys. A text that is not a key stands for itself.
        """
        if self._last is None or self._last[0] != have:
            self._last = have, self._read(have)
        return self._last[1]

    def _read(self, have: Mapping[str, str]) -> Shown:
        keys = [*have] if self._model is None else [self._key(text, self._model) for text in have]
        if collide([key for key in keys if not isinstance(key, str)], Counter(), ALIKE):
            keys = [*have]
        return {key: digest_from(etag) for key, etag in zip(keys, have.values(), strict=True)}

    def _key(self, text: str, model: Model) -> Hashable:
        key = self._keys.get(text)
        if key is None:
            key = from_text(model, text)
            if len(self._keys) < MAX_KEPT_KEYS:
                self._keys[text] = key
        return key
