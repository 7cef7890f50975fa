"""Tokens as clients send them: whatever they are, they are parsed or refused, and quickly."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgobserve.deliver.tokens import Back, parse_list_token, parse_token
from pgobserve.hub.snapshot import MAX_TEXT, Snapshot

SNAPSHOTS = st.builds(
    lambda xmin, offsets, run: Snapshot(
        xmin, xmin + 50, frozenset(xmin + each for each in offsets), run
    ),
    st.integers(1, 2**62),
    st.frozensets(st.integers(0, 49)),
    st.integers(0, 2**62),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(SNAPSHOTS, st.from_regex(r"[0-9a-f]{12}", fullmatch=True))
def test_there_and_back(snapshot: Snapshot, fingerprint: str) -> None:
    """A token that was given is read as what it was made of."""
    back = Back(snapshot, fingerprint, None)

    assert parse_list_token(back.token) == (snapshot, fingerprint)
    assert parse_token(str(snapshot)) == snapshot


@given(JSON)
def test_anything(value: Any) -> None:
    """Whatever JSON has is a token or a ValueError, nothing else."""
    for parse in (parse_token, parse_list_token):
        with suppress(ValueError):
            parse(value)  # type: ignore[operator]


@given(SNAPSHOTS, st.text(max_size=30))
def test_tails(snapshot: Snapshot, tail: str) -> None:
    """After a snapshot only a fingerprint is taken, of plain digits."""
    try:
        _, fingerprint = parse_list_token(f"{snapshot}~{tail}")
    except ValueError:
        return
    assert set(fingerprint) <= set("0123456789abcdef")
    assert json.loads(json.dumps(fingerprint)) == fingerprint


@pytest.mark.parametrize(
    "value",
    [
        "1:1:",
        "1:1:~",
        "~ffffffffffff",
        "1:1:~ffffffffffff~",
        "1:1:~FFFFFFFFFFFF",
        "1:1:~ffffffffffff\n",
        "1:1:~" + "f" * 65,
        "1:1:~٣٣٣٣٣٣٣٣٣٣٣٣",
        "1:1:@1@1~ffffffffffff",
        "0:1:~ffffffffffff",
        "2:1:~ffffffffffff",
        "1:3:5~ffffffffffff",
        "1:3:2,~ffffffffffff",
        f"1:{'9' * 20}:~ffffffffffff",
        "1" * (2 * MAX_TEXT + 1),
    ],
)
def test_refused(value: str) -> None:
    """What is almost a token is none."""
    with pytest.raises(ValueError, match="not a"):
        parse_list_token(value)
