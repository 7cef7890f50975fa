"""JSON as it travels: strict in both directions, and with all that DRF can render."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from rest_framework.utils.encoders import JSONEncoder

# ASCII only: a lone surrogate, which JSON can carry, can't be sent as UTF-8.
_ENCODER: Final = JSONEncoder(allow_nan=False, separators=(",", ":"))


def encode(content: Any) -> str:
    """
    Return ``content`` as JSON; dates, decimals, UUIDs and lazy strings as DRF renders them.

    Raises:
        ValueError: A number that JSON doesn't have, or a circle.
        TypeError: Something that DRF can't render.
    """
    return _ENCODER.encode(content)


def decode(text: str) -> Any:
    """
    Return what a client's JSON says.

    Raises:
        ValueError: It is no JSON, or has numbers that JSON doesn't have: they could not be sent
            back.
        RecursionError: It is nested too deeply.
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
