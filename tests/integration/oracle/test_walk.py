"""For random writes and users, the feed says what ``list`` and ``retrieve`` say on the same socket."""

from __future__ import annotations

import os
import random

import pytest

from tests.integration.oracle.kinds import KINDS
from tests.integration.oracle.socket import Differs
from tests.integration.oracle.walk import Walk

#: A failure is run again by PGOBSERVE_ORACLE_SEED=…, and reduced by PGOBSERVE_ORACLE_KINDS=….
SEEDS = [int(each) for each in os.environ.get("PGOBSERVE_ORACLE_SEED", "").split(",") if each]
NAMES = [each for each in os.environ.get("PGOBSERVE_ORACLE_KINDS", "").split(",") if each]
STEPS = int(os.environ.get("PGOBSERVE_ORACLE_STEPS", "0"))

#: How many threads read for the feed.
THREADS = (1, 2)

#: Each kind is among so many others that a default run has all of them.
PARTS = 4


def kinds_of(seed: int) -> list[str]:
    """Return the kinds of a walk: those of ``PARTS`` seeds in a row are all that there are."""
    names = sorted(KINDS)
    random.Random(seed // PARTS).shuffle(names)
    return NAMES or names[seed % PARTS :: PARTS]


async def walk(seed: int, steps: int) -> None:
    names = kinds_of(seed)
    try:
        await Walk(seed, names, STEPS or steps).run()
    except Differs as error:
        raise AssertionError(f"seed {seed}, kinds {','.join(names)}: {error}") from None


@pytest.mark.parametrize(
    ("seed", "threads"),
    [(seed, threads) for seed in SEEDS for threads in THREADS]
    or [(seed, 1 + seed % 2) for seed in range(PARTS)],
)
async def test_feed_is_what_actions_say(seed: int, feeds: None) -> None:
    """Every frame is what the socket's own actions say at that moment, and none is missing."""
    await walk(seed, 15 if SEEDS else 5)


@pytest.mark.slow
@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("seed", range(PARTS, 5 * PARTS))
async def test_feed_is_what_actions_say_for_long(seed: int, feeds: None) -> None:
    """The same, from many seeds."""
    await walk(seed, 15)
