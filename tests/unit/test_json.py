"""JSON as it travels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgobserve import _json

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(anything)
def test_what_was_read_can_be_sent(value: object) -> None:
    """What a client can say can be said back to it, over any wire."""
    text = _json.encode(value)
    assert _json.decode(text) == value
    assert text.isascii()


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "[1e400]", '{"a": -1e999}', "", "{", "'a'"])
def test_what_is_not_json_is_refused(text: str) -> None:
    """Numbers that JSON does not have are refused as other nonsense is."""
    with pytest.raises(ValueError, match=r"\w"):
        _json.decode(text)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")]])
def test_numbers_that_json_does_not_have_are_not_sent(value: object) -> None:
    """NaN and infinity are an error, not something that no browser reads."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        _json.encode(value)


@pytest.mark.parametrize(
    ("value", "levels"),
    [(5, 0), ([], 1), ([1, {"a": []}], 3), ({"a": {"b": {"c": 1}}}, 3)],
)
def test_depth(value: object, levels: int) -> None:
    """Depth is the number of lists and objects that lie in each other."""
    assert not _json.is_deeper(value, levels)
    assert levels == 0 or _json.is_deeper(value, levels - 1)
