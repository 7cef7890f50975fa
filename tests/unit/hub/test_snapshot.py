"""A PostgreSQL snapshot as a value; the integration tests compare it with the server's own."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgobserve.hub.snapshot import FRESH, MAX_TEXT, MAX_XIDS, Snapshot, Stale, is_old_news, with_xid

XID = st.integers(1, 2**62)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Draw a snapshot as the server could have taken it."""
    xmin = draw(XID)
    width = draw(st.integers(0, 50))
    running = draw(st.frozensets(st.integers(0, width - 1), max_size=20)) if width else ()
    return Snapshot(xmin, xmin + width, frozenset(xmin + offset for offset in running))


def visible(xid: int, snapshot: Snapshot) -> bool:
    """``pg_visible_in_snapshot``, as its C function goes about it."""
    if xid < snapshot.xmin:
        return True
    if xid >= snapshot.xmax:
        return False
    return all(running != xid for running in snapshot.in_progress)


@given(snapshots(), st.integers(-3, 60))
def test_sees(snapshot: Snapshot, offset: int) -> None:
    """Ended before it: seen. Begun after it, or in progress: not seen."""
    xid = snapshot.xmin + offset

    assert snapshot.sees(xid) == visible(xid, snapshot)


@given(snapshots())
def test_text_round_trip(snapshot: Snapshot) -> None:
    """The text form, sorted as PostgreSQL wants it, reads back as the same value."""
    text = str(snapshot)
    running = [int(part) for part in text.split(":")[2].split(",") if part]

    assert Snapshot.parse(text) == snapshot
    assert running == sorted(running)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "::",
        "1:1",
        "1:1:1",
        "0:1:",
        "2:1:",
        "5:9:4",
        "5:9:9",
        "5:9:6,",
        "5:9:,6",
        "5:9:6,,7",
        " 5:9:",
        "5:9:\n",
        "+5:9:",
        "-5:9:",
        "5:9:6:7",
        "\N{ARABIC-INDIC DIGIT FIVE}:\N{ARABIC-INDIC DIGIT NINE}:",
        "1:" + "9" * 20 + ":",
        "null",
        "5:9:" + "6," * MAX_TEXT + "6",
    ],
)
def test_no_snapshot(text: str) -> None:
    """What is none, a client's invention for instance, is a ValueError."""
    with pytest.raises(ValueError, match="not a snapshot"):
        Snapshot.parse(text)


@given(st.text() | st.from_regex(r"[0-9:,]{0,30}"))
def test_parse_raises_nothing_else(text: str) -> None:
    """Any text is a snapshot that prints as it was read, sorted, or a ValueError."""
    with suppress(ValueError):
        assert Snapshot.parse(str(Snapshot.parse(text))) == Snapshot.parse(text)


def test_run_of_the_server() -> None:
    """The run that a snapshot is of goes with its text; without one it is not known."""
    assert Snapshot.parse("5:9:6@1795510000123456").run == 1795510000123456
    assert str(Snapshot.parse("5:9:6@1795510000123456")) == "5:9:6@1795510000123456"
    assert Snapshot.parse("5:9:6").run == 0
    assert str(Snapshot.parse("5:9:6")) == "5:9:6"


SEEN = Snapshot(5, 10, frozenset({5, 7}))


@pytest.mark.parametrize(
    ("stale", "wanted"),
    [
        (FRESH, True),
        ((4, 6), True),
        ((4, 7), False),
        ((10,), False),
        (None, False),
    ],
)
def test_old_news(stale: Stale, wanted: bool) -> None:
    """It is old news if the load had seen every one of the transactions."""
    assert is_old_news(SEEN, stale) is wanted


def test_without_a_load() -> None:
    """Without a load nothing has been seen."""
    assert not is_old_news(None, (1,))


def test_forgets_which() -> None:
    """After many transactions it must be read whatever was seen; and that stays so."""
    stale = FRESH
    for xid in range(MAX_XIDS):
        stale = with_xid(stale, xid)
    assert stale == tuple(range(MAX_XIDS))
    assert with_xid(stale, 99) is None
    assert with_xid(None, 1) is None
