"""Arguments of a request to subscribe: their limits, and how they name a subscription."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from rest_framework.exceptions import APIException, ValidationError

from pgobserve._json import is_deeper
from pgobserve.exceptions import ArgumentsTooLong, QueryTooLong

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgobserve.hub.outcome import Refusal

#: Maximum length of a client's query as JSON, and of all arguments of a subscription together.
MAX_QUERY: Final = 8192
MAX_ARGUMENTS: Final = 16_384

#: Maximum nesting of lists and objects in them.
MAX_LEVELS: Final = 20


def encode_name(value: Any) -> str:
    """Return canonical JSON of a value; clients may use any JSON value as a name."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def check_arguments(kwargs: Mapping[str, Any]) -> int:
    """
    Return the length of a request's arguments as JSON.

    A long query delays the rows of other subscribers at each change: a search for twenty thousand words
    takes seconds. Arguments are kept as long as the subscription lives.

    Raises:
        QueryTooLong: The query is too long.
        ArgumentsTooLong: All arguments together are too long.
        ValidationError: They are nested too deeply.
    """
    if is_deeper(kwargs, MAX_LEVELS):
        raise ValidationError([f"Arguments may have {MAX_LEVELS} levels of lists and objects."])
    if len(encode_name(kwargs.get("query"))) > MAX_QUERY:
        raise QueryTooLong(MAX_QUERY)
    size = _size_of(kwargs)
    if size > MAX_ARGUMENTS:
        raise ArgumentsTooLong(MAX_ARGUMENTS)
    return size


def _size_of(kwargs: Mapping[str, Any]) -> int:
    """Return the length of arguments as JSON. Objects added by the project count by their type's name."""
    return len(json.dumps(kwargs, default=lambda value: type(value).__name__))


def exception_for(refusal: Refusal) -> Exception:
    """Return the exception that answers a refused request."""
    error = APIException(detail=list(refusal.errors))
    error.status_code = refusal.status
    return error
