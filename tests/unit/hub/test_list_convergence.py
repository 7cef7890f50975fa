"""
Lists, driven in any order: each frame fits what the client has, and in the end he has the truth.

What may happen is in :mod:`tests.unit.hub.lists`; here it is drawn.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgobserve.deliver import delivery
from tests.unit.hub.lists import (
    LINKED,
    PLAIN,
    WIDE,
    Selection,
    World,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Arguments = dict[str, Any]

#: How often each step is taken, and when it can be.
STEPS: dict[str, tuple[float, Callable[[World], Any]]] = {
    "write": (10, lambda _: True),
    "write_more": (3, lambda _: True),
    "end_transaction": (4, lambda world: world.running),
    "hear": (12, lambda world: world.on_the_way),
    "be_disturbed": (0.5, lambda _: True),
    "listen_again": (3, lambda world: not world.listening),
    "load": (30, lambda world: world.hub.dirty),
    "go_on": (10, lambda world: world.reading),
    "fail": (2, lambda world: any(each.telling is None for each in world.reading)),
    "take_traces": (3, lambda world: world.hub.dirty),
    "trace": (3, lambda world: world.tracing),
    "try_again": (2, lambda world: world.loader._retries.things),
    "break_or_mend_a_row": (3, lambda _: True),
    "subscribe": (1.5, lambda world: world.listening and len(world.watched) < 5),
    "leave": (1, lambda world: world.watched),
    "see_another_list": (1, lambda world: world.watched),
    "client_reads": (6, lambda world: any(client.awake for client in world.everyone)),
    "hold_or_release": (3, lambda _: True),
}


class Draw:
    """Draws steps and what they are about."""

    def __init__(self, numbers: random.Random) -> None:
        self.numbers = numbers

    def selection(self) -> Selection:
        subject = self.any(PLAIN, PLAIN, WIDE, LINKED)
        return Selection(subject, self.any("all", "even"), self.numbers.randrange(8) == 0)

    def any(self, *things: Any) -> Any:
        return things[self.numbers.randrange(len(things))]

    def steps(self, length: int) -> list[str]:
        """Return the names of steps; of some kinds there are many, or few, each time others."""
        weights = [weight * self.any(0.1, 1, 1, 3) for weight, _ in STEPS.values()]
        return self.numbers.choices([*STEPS], weights, k=length)

    def arguments(self, name: str) -> Arguments:
        key, which = self.numbers.randrange(4), self.numbers.randrange(6)
        row = {"table": self.any(*"aaaabbccw"), "key": key, "value": self.any(None, 0, 1, 2, 3)}
        given: dict[str, Arguments] = {
            "write": row,
            "write_more": {"which": self.numbers.randrange(3), **row},
            "end_transaction": {
                "which": which,
                "how": self.any("all", "all", "all", "keys", "nothing", "roll back"),
            },
            "hear": {"count": 1 + which},
            "be_disturbed": {
                "what": self.any("forged", "interrupted"),
                "table": row["table"],
                "xid": self.numbers.randrange(200),
                "key": self.any(None, key),
            },
            "load": {
                "whole": self.any(True, False),
                "limit": self.any(1, 2, 3),
                "at_once": self.any(0, 1, 2, 2, 2, 2, 2),
            },
            "go_on": {
                "which": which,
                "steps": self.any(0, 1, 2, 5, 50),
                "refuses": self.numbers.randrange(20),
            },
            "fail": {"which": which},
            "trace": {"too_many": which, "fails": self.numbers.randrange(6)},
            "break_or_mend_a_row": {"key": key},
            "subscribe": {
                "which": which,
                "selection": self.selection(),
                "hidden": self.any(None, None, 0, 1),
                "own": self.any(False, False, True),
            },
            "leave": {
                "which": which,
                "how": self.any("end", "replace", "come back", "come back"),
                "to": self.numbers.randrange(6),
            },
            "see_another_list": {"which": which, "selection": self.selection()},
            "client_reads": {"which": which, "frames": self.any(1, 2, 3)},
            "hold_or_release": {"which": which},
        }
        return given.get(name, {})


def drawn(numbers: random.Random, length: int) -> Iterator[tuple[str, Arguments]]:
    """Draw what happens."""
    draw = Draw(numbers)
    selections = [draw.selection() for _ in range(draw.any(1, 2, 3))]
    yield "begin", {"selections": selections, "own": draw.any(False, True)}
    for name in draw.steps(length):
        yield name, draw.arguments(name)


def happens(steps: Iterator[tuple[str, Arguments]]) -> None:
    """Let it happen, as far as it can."""
    world, taken = World(), []
    # As a loader that gives way to others after every other frame.
    with patch.object(delivery, "YIELD_EVERY", 2):
        try:
            for name, arguments in steps:
                if name in STEPS and not STEPS[name][1](world):
                    continue
                taken.append((name, arguments))
                getattr(world, name)(**arguments)
                world.no_news_waits_for_nobody()
                world.nothing_piles_up()
            world.end()
        except AssertionError as error:
            error.add_note("\n".join(f"{name} {arguments}" for name, arguments in taken))
            raise


@settings(max_examples=40)
@given(st.randoms(use_true_random=False))
def test_short(numbers: random.Random) -> None:
    """Whatever happens, in a few steps, which are made fewer if it goes wrong."""
    happens(drawn(numbers, 20))


@pytest.mark.parametrize("seed", range(200))
def test_long(seed: int) -> None:
    """Whatever happens, in many steps."""
    happens(drawn(random.Random(seed), 500))


@pytest.mark.parametrize("how", ["all", "keys", "nothing"])
@pytest.mark.parametrize("table", ["b", "c"])
@pytest.mark.parametrize("too_many", [0, 1])
def test_led_back(how: str, table: str, too_many: int) -> None:
    """A change elsewhere reaches its rows, whatever was told of it, and if they are too many."""
    lists = [Selection(LINKED, "all")]
    written = {"which": 0, "table": table, "key": 1, "value": 1}
    steps: list[tuple[str, Arguments]] = [
        ("begin", {"selections": lists, "own": False}),
        ("write_more", written),
        ("end_transaction", {"which": 0, "how": how}),
        ("hear", {"count": 5}),
        ("take_traces", {}),
        ("trace", {"too_many": too_many, "fails": 1}),
    ]

    happens(iter(steps))
