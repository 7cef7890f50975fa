"""The project's language names the actor, and uses the terms of the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.language import AVOIDED, counts, of_module, of_page, rates

ROOT = Path(__file__).parents[2]

#: How often the documentation may use an avoided word, per 10,000 words.
DOCUMENTATION = {"tell": 5, "who": 4, "he": 1, "ask": 5}

PAGES = [
    *ROOT.glob("*.md"),
    *(path for path in ROOT.glob("docs/**/*.md") if "_build" not in path.parts),
]


@pytest.mark.parametrize("word", AVOIDED)
def test_documentation(word: str) -> None:
    """Pages seldom say that something tells or asks, or who does something."""
    assert rates(of_page(page.read_text()) for page in PAGES)[word] <= DOCUMENTATION[word]


def test_code_of_a_page_is_left_out() -> None:
    """Output and code on a page do not count, for they are what the program prints."""
    page = "He asks.\n```console\n$ tell who\n```\nThey `ask` him, and are told.\n"

    assert counts(of_page(page)) == {"tell": 1, "who": 0, "he": 2, "ask": 1}


def test_prose_of_a_module() -> None:
    """Docstrings, comments and messages count; names and code in them do not."""
    source = '''"""Whoever asks."""

def ask(who):  # he is told
    """Ask, by ``who``."""
    raise LookupError(f"{who} was not told.")
'''

    assert counts(of_module(source)) == {"tell": 2, "who": 1, "he": 1, "ask": 2}


def test_rates() -> None:
    """A rate is per 10,000 words of all texts together."""
    assert rates(["Tell me " + "now " * 98, "word " * 100])["tell"] == 50
