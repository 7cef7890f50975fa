"""From the text of a notification to a :class:`~pgobserve.wire.Change`."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final

from pgobserve.errors import PayloadInvalid
from pgobserve.wire import PAYLOAD_VERSION, Change, Operation

#: Columns whose values a payload may carry. A table cannot have more columns.
MAX_ROUTES: Final = 1600

#: Types of single keys. A set comparison checks them without a call for each key.
_SCALARS: Final = frozenset({str, int, Decimal})

#: Calling the enumeration for each notification would take five times as long.
_OPERATIONS: Final = {operation.value: operation for operation in Operation}

#: ``json.loads`` with arguments would build a decoder at each call.
_DECODER: Final = json.JSONDecoder(parse_float=Decimal)


def parse(text: str) -> Change:
    """
    Read a payload.

    Args:
        text: ``{"v":1,"t":"app.model","o":"I|U|D|T","x":"<xid8>","k":[key,…]|null}``, optionally with
            ``"r":{"column":[value,…]}``. Unknown keys are ignored, so that a later version can add some.

    Raises:
        PayloadInvalid: No trigger wrote the text. Any role can NOTIFY on the channel.
    """
    try:
        content = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise PayloadInvalid(f"not JSON: {text[:80]!r}") from error
    if not isinstance(content, dict) or content.get("v") != PAYLOAD_VERSION:
        raise PayloadInvalid(f"not a payload of version {PAYLOAD_VERSION}: {text[:80]!r}")
    label, schema = content.get("t"), content.get("s")
    if not isinstance(label, str) or not (schema is None or isinstance(schema, str)):
        raise PayloadInvalid(f"no table: {text[:80]!r}")
    return Change(
        label, _operation(content), _xid(content), _keys(content), schema, _routes(content)
    )


def _operation(content: dict[str, Any]) -> Operation:
    text = str(content.get("o"))
    operation = _OPERATIONS.get(text)
    if operation is None:
        raise PayloadInvalid(f"unknown operation {text[:80]!r}")
    return operation


def _xid(content: dict[str, Any]) -> int:
    # A string: JavaScript's numbers cannot hold an xid8.
    text = content.get("x")
    if isinstance(text, str) and len(text) <= 20 and text.isascii() and text.isdigit():
        return int(text)
    raise PayloadInvalid(f"no transaction: {str(text)[:80]!r}")


def _keys(content: dict[str, Any]) -> tuple[Any, ...] | None:
    keys = content.get("k")
    if keys is None:
        return None
    if isinstance(keys, list) and (
        _SCALARS.issuperset(map(type, keys)) or all(_is_key(key) for key in keys)
    ):
        return tuple(keys)
    raise PayloadInvalid(f"no keys: {str(keys)[:80]!r}")


def _is_key(key: object) -> bool:
    """Return whether a value is a scalar, or a list of scalars: a composite key."""
    return all(map(_is_scalar, key if isinstance(key, list) else [key]))


def _routes(content: dict[str, Any]) -> dict[str, tuple[Any, ...]] | None:
    if "r" not in content:
        return None
    routes = content["r"]
    if (
        isinstance(routes, dict)
        and len(routes) <= MAX_ROUTES
        and all(map(_is_list_of_scalars, routes.values()))
    ):
        return {column: tuple(values) for column, values in routes.items()}
    raise PayloadInvalid(f"no routes: {str(routes)[:80]!r}")


def _is_list_of_scalars(values: object) -> bool:
    return isinstance(values, list) and (
        _SCALARS.issuperset(map(type, values)) or all(map(_is_scalar, values))
    )


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | Decimal)
