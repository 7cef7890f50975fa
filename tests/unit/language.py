"""Which words the language of the project avoids, and where they are counted."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

#: Words that hide the actor, by the name under which the limits list them.
AVOIDED = {
    "tell": re.compile(r"\b(?:tell|tells|telling|told|untold)\b", re.IGNORECASE),
    "who": re.compile(r"\b(?:who|whoever|whom|whomever)\b", re.IGNORECASE),
    "he": re.compile(r"\b(?:he|him|himself|his|she|her|hers|herself)\b", re.IGNORECASE),
    "ask": re.compile(r"\b(?:ask|asked|asking|asks)\b", re.IGNORECASE),
}

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(``?).+?\1", re.DOTALL)
WORD = re.compile(r"[A-Za-z][\w'-]*")


def of_page(text: str) -> str:
    """Return the prose of a page of Markdown: its text without code."""
    return CODE.sub("", FENCE.sub("", text))


def of_module(source: str) -> str:
    """Return the prose of a module: its comments, docstrings and messages, without code."""
    return "\n".join(CODE.sub("", each) for each in (*_comments(source), *_strings(source)))


def counts(prose: str) -> dict[str, int]:
    """Return how often a text has each kind of word."""
    return {name: len(pattern.findall(prose)) for name, pattern in AVOIDED.items()}


def rates(texts: Iterable[str]) -> dict[str, float]:
    """Return how often texts have each kind of word, per 10,000 words."""
    prose = "\n".join(texts)
    words = len(WORD.findall(prose))
    return {name: round(count * 10_000 / words, 1) for name, count in counts(prose).items()}


def folders(package: Path) -> dict[str, str]:
    """Return the prose of a package by its top-level folders; ``.`` has its own modules."""
    prose: dict[str, list[str]] = {}
    for path in sorted(package.glob("**/*.py")):
        folder = path.relative_to(package).parts[0] if path.parent != package else "."
        prose.setdefault(folder, []).append(of_module(path.read_text()))
    return {folder: "\n".join(texts) for folder, texts in prose.items()}


def _comments(source: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def _strings(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
