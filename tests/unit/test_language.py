"""The project's language names the actor, and uses the terms of the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.language import AVOIDED, counts, folders, of_module, of_page, rates

ROOT = Path(__file__).parents[2]

#: How often the documentation may use an avoided word, per 10,000 words.
DOCUMENTATION = {"tell": 5, "who": 4, "he": 1, "ask": 5}

#: How many avoided words the modules of each folder of the package may have together: in comments,
#: docstrings and messages. These numbers only go down. A folder that is not named has none; ``.`` stands
#: for the modules beside the folders.
PACKAGE = {
    ".": 0,
    "cohorts": 0,
    "database": 0,
    "deliver": 0,
    "dependencies": 1,
    "hub": 0,
    "load": 0,
    "observer": 0,
    "render": 0,
    "sql": 2,
    "workers": 0,
}

#: By how many a folder may be better than its number, before the number has to be lowered.
SLACK = 10

PAGES = [
    *ROOT.glob("*.md"),
    *(path for path in ROOT.glob("docs/**/*.md") if "_build" not in path.parts),
]


@pytest.mark.parametrize("word", AVOIDED)
def test_documentation(word: str) -> None:
    """Pages seldom say that something tells or asks, or who does something."""
    assert rates(of_page(page.read_text()) for page in PAGES)[word] <= DOCUMENTATION[word]


@pytest.fixture(scope="module")
def package() -> dict[str, int]:
    """Return how many avoided words each folder of the package has."""
    prose = folders(ROOT / "pgobserve")
    return {folder: sum(counts(text).values()) for folder, text in prose.items()}


def test_package(package: dict[str, int]) -> None:
    """No folder has more avoided words than before."""
    assert {each: n for each, n in package.items() if n > PACKAGE.get(each, 0)} == {}


def test_numbers_go_down(package: dict[str, int]) -> None:
    """A folder that was rewritten has its number lowered."""
    assert {
        each: package.get(each) for each, n in PACKAGE.items() if n - package.get(each, 0) > SLACK
    } == {}


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
