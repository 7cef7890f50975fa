"""
Identity on the wire: the text that identifies a row, and the digest of a state of it.

All frames about a row of a list have the same ``key``, whatever the serializer shows. All processes compute
the same ``etag``, so that any of them can serve a returning client.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

_DIGEST_BYTES: Final = 8


def digest_of(body: str) -> bytes:
    """Return the digest of a row's JSON text."""
    return hashlib.blake2b(body.encode(), digest_size=_DIGEST_BYTES).digest()


def etag_of(body: str) -> str:
    """Return the etag of a row's JSON text."""
    return digest_of(body).hex()


def digest_from(etag: str) -> bytes | None:
    """Return the digest in an etag; None if the text is no etag."""
    try:
        digest = bytes.fromhex(etag)
    except ValueError:
        return None
    return digest if len(digest) == _DIGEST_BYTES else None


def key_text(key: Hashable) -> str:
    """
    Return the text that identifies a row. Equal keys have the same text.

    Args:
        key: The key as in the ORM; a tuple for a composite key.
    """
    if isinstance(key, str):
        return key
    if isinstance(key, tuple):
        return json.dumps([key_text(part) for part in key], separators=(",", ":"))
    if isinstance(key, Decimal):
        return _decimal_text(key)
    if isinstance(key, datetime.datetime) and key.tzinfo is not None:
        return key.astimezone(datetime.UTC).isoformat()
    if isinstance(key, bytes | memoryview):
        return bytes(key).hex()
    return str(key or 0.0) if isinstance(key, float) else str(key)


def _decimal_text(key: Decimal) -> str:
    if not key.is_finite() or not key:
        return str(key) if key else "0"
    text = f"{key:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class Names:
    """
    The names of a list's rows; empty for a list whose rows are identified by primary keys.

    A name is a value of the row and can change; rows may even swap names. A name belongs to the row that
    received it last.
    """

    __slots__ = ("_keys", "_names")

    def __init__(self) -> None:
        self._names: dict[Hashable, str] = {}
        self._keys: dict[Hashable, Hashable] = {}

    def of(self, key: Hashable) -> Hashable:
        """Return the name of a row, or its key if it has none."""
        return self._names.get(key, key)

    def key_of(self, name: Hashable) -> Hashable:
        """Return the key of the row with a name."""
        return self._keys.get(name, name)

    def holds(self, key: Hashable) -> bool:
        """Return whether a row's name still belongs to it."""
        return key not in self._names or self._keys.get(self._names[key]) == key

    def rename(self, key: Hashable, name: str | None) -> str | None:
        """
        Record the name of a row.

        Args:
            name: The name; None if it is not known, or rows have no names.

        Returns:
            The row's earlier name if it belongs to no row now.
        """
        before = self._names.get(key)
        if name is None or name == before:
            return None
        left = None
        if before is not None and self._keys.get(before) == key:
            del self._keys[before]
            left = before
        self._names[key] = name
        self._keys[name] = key
        return left

    def forget(self, key: Hashable) -> None:
        """Remove the name of a row."""
        name = self._names.pop(key, None)
        if name is not None and self._keys.get(name) == key:
            del self._keys[name]

    def replace(self, names: Mapping[Hashable, str]) -> None:
        """Record the names of all rows of the list."""
        self._names = dict(names)
        self._keys = {name: key for key, name in names.items()}


#: The names of all lists whose rows are identified by primary keys.
NO_NAMES: Final = Names()
