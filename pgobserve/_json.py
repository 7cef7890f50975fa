"""JSON of frames: strict in both directions, with all types that DRF can render."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from rest_framework.utils.encoders import JSONEncoder

# ASCII only: JSON may contain a lone surrogate, which UTF-8 can't encode.
_ENCODER: Final = JSONEncoder(allow_nan=False, separators=(",", ":"))


def encode(content: Any) -> str:
    """
    Return ``content`` as JSON; dates, decimals, UUIDs and lazy strings as DRF renders them.

    Raises ``ValueError`` for a number that JSON does not have, ``TypeError`` for a type unknown to DRF.
    """
    return _ENCODER.encode(content)


def decode(text: str) -> Any:
    """
    Decode a client's JSON.

    Raises ``ValueError`` for numbers that replies could not contain, ``RecursionError`` for deep nesting.
    """
    return json.loads(text, parse_constant=_refuse, parse_float=_finite)


def is_deeper(value: Any, levels: int) -> bool:
    """Return whether a decoded value has more than so many levels of lists and objects."""
    if not isinstance(value, (list, dict)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(is_deeper(each, levels - 1) for each in inner)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON.")


def _finite(text: str) -> float:
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        raise ValueError(f"{text} is out of range.")
    return number
