"""
Checks the arguments that a client sends against the method that they are for.

The keys of a message become keyword arguments. They are compared with the signature, so that a
``TypeError`` inside a method never counts as the client's mistake.
"""

from __future__ import annotations

from functools import lru_cache
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, Final

from rest_framework.exceptions import ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Names of the arguments that the consumer itself passes to permissions and actions.
RESERVED: Final = ("self", "scope", "consumer", "action", "request_id")

_FILLED_BY_NAME: Final = frozenset({Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY})


def refuse_reserved(arguments: Mapping[str, Any], *names: str) -> None:
    """
    Refuse a message whose key is the name of an argument of ours.

    Raises:
        ValidationError: ``arguments`` has one of ``names``.
    """
    for name in names:
        if name in arguments:
            raise ValidationError(f'"{name}" is a reserved name and can\'t be a key here.')


def fit(
    method: Callable[..., Any], given: Mapping[str, Any], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """
    Return the keyword arguments to call ``method`` with.

    Args:
        given: Arguments that the consumer adds, if the method accepts them.
        arguments: Arguments from the client, all of which must fit.

    Raises:
        ValidationError: An argument is missing or unknown.
    """
    function = getattr(method, "__func__", method)
    accepted, required, takes_any = _parameters(function, function is not method)
    unknown = () if takes_any else [name for name in arguments if name not in accepted]
    missing = [name for name in required if name not in arguments and name not in given]
    if missing:
        raise ValidationError([f'"{name}" is required.' for name in missing])
    if unknown:
        raise ValidationError([f'"{name}" is not an argument of this action.' for name in unknown])
    fitting = {k: v for k, v in given.items() if takes_any or k in accepted}
    return {**fitting, **arguments}


@lru_cache(maxsize=4096)
def _parameters(
    function: Callable[..., Any], bound: bool
) -> tuple[frozenset[str], tuple[str, ...], bool]:
    """Return the names a function accepts, those it requires, and whether it takes any other."""
    parameters = list(signature(function).parameters.values())[1 if bound else 0 :]
    named = [p for p in parameters if p.kind in _FILLED_BY_NAME]
    return (
        frozenset(p.name for p in named),
        tuple(p.name for p in named if p.default is Parameter.empty),
        any(p.kind is Parameter.VAR_KEYWORD for p in parameters),
    )
