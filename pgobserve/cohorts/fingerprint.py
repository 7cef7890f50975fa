"""What identifies a list in tokens, for all processes alike."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from pgobserve.sql.full_query import FullQuery


def fingerprint(
    alias: str,
    whole: FullQuery,
    only: str | None,
    lookups: Sequence[Hashable],
    serializer_class: Any,
    maker: Sequence[Any],
    locale: Sequence[Any],
) -> str:
    """Return what changes when a list has other rows by definition, or shows them otherwise."""
    shape = ""
    if serializer_class is not None:
        by = [_name(each) for each in maker]
        shape = f"{_shape(serializer_class)}\0{lookups}\0{by}\0{locale}"
    text = f"{alias}\0{whole.text}\0{only}\0{shape}"
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _name(each: Any) -> str:
    # A descriptor, or a partial method, has no name of its own.
    named = each if hasattr(each, "__qualname__") else type(each)
    return f"{named.__module__}.{named.__qualname__}"


@lru_cache(maxsize=1024)
def _shape(serializer_class: Any) -> str:
    """Describe what a serializer shows, for all processes alike."""
    try:
        described = repr(serializer_class())
    except Exception:  # noqa: BLE001 (it is made otherwise, by the consumer)
        described = ""
    name = f"{serializer_class.__module__}.{serializer_class.__qualname__}"
    return name + re.sub(r"0x[0-9a-f]+", "", described)
