"""
What returning clients say that they hold of a list, as the list's state has it.

Nothing of it is trusted, and nothing needs to be. A row is sent unless its etag is that of what the
client would be shown now, so that a false claim misleads only the client that makes it.
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

#: Texts whose keys are remembered for the other clients of one load.
REMEMBERED: Final = 20_000


class Holdings:
    """
    Reads what several clients of one list hold.

    Whether a row is on the list plays no part in it: a client must not see from the answer whether
    a row that it claims is hidden or does not exist.

    Args:
        model: Of the list's rows; None if their primary keys do not name them.
    """

    def __init__(self, model: Model | None) -> None:
        self._model = model
        self._keys: dict[str, Hashable] = {}
        # Clients that come back together mostly hold the same.
        self._last: tuple[Mapping[str, str], Shown] | None = None

    def of(self, have: Mapping[str, str]) -> Shown:
        """
        Return digests by key, in the client's order; the same object for clients that hold the same.

        Args:
            have: Etags by the text of keys. A text that no key has stands for itself.
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
            if len(self._keys) < REMEMBERED:
                self._keys[text] = key
        return key
