"""Which arguments fit a method."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.exceptions import ValidationError

from pgobserve._consumer.calls import fit, refuse_reserved
from pgobserve.decorators import action

GIVEN = {"action": "a", "request_id": 1}


class Methods:
    def all(self, **kwargs: Any) -> None: ...

    def some(self, pk: int, *, limit: int = 3) -> None: ...

    def named(self, action: str, pk: int) -> None: ...

    @action()
    def decorated(self, pk: int) -> None: ...


@pytest.mark.parametrize(
    ("method", "sent", "expected"),
    [
        ("all", {"x": 1}, {"x": 1, **GIVEN}),
        ("some", {"pk": 1}, {"pk": 1}),
        ("some", {"pk": 1, "limit": 2}, {"pk": 1, "limit": 2}),
        ("named", {"pk": 1}, {"pk": 1, "action": "a"}),
        ("decorated", {"pk": 1}, {"pk": 1}),
    ],
)
def test_fitting(method: str, sent: dict[str, Any], expected: dict[str, Any]) -> None:
    """What fits is passed on, with what the consumer adds where there is a place for it."""
    assert fit(getattr(Methods(), method), GIVEN, sent) == expected


@pytest.mark.parametrize(
    ("method", "sent", "errors"),
    [
        ("some", {}, ['"pk" is required.']),
        ("some", {"pk": 1, "x": 1, "y": 2}, ['"x" is not', '"y" is not']),
        ("decorated", {"self": 1, "pk": 1}, ['"self" is not']),
        ("named", {}, ['"pk" is required.']),
    ],
)
def test_not_fitting(method: str, sent: dict[str, Any], errors: list[str]) -> None:
    """What is missing, or unknown, is named."""
    with pytest.raises(ValidationError) as caught:
        fit(getattr(Methods(), method), GIVEN, sent)
    assert isinstance(caught.value.detail, list)
    for text, start in zip(caught.value.detail, errors, strict=True):
        assert text.startswith(start)


def test_reserved() -> None:
    """A reserved key is refused by name, others are not."""
    refuse_reserved({"a": 1}, "b")
    with pytest.raises(ValidationError, match='"a" is a reserved name'):
        refuse_reserved({"a": 1}, "b", "a")
