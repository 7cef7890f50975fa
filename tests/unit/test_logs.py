"""Log lines name what they are about, in the text and as fields of the record."""

from __future__ import annotations

import ast
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgobserve.logs import FIELDS, fields
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[2] / "pgobserve"

#: What a call of a logger may be.
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name("logger"), attr=name)) if (
                name in LEVELS
            ):
                yield node


def _modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "logger." in path.read_text()]


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_line_has_fields(path: Path) -> None:
    """Each call of a logger passes ``extra``, and its text has a place for what it names."""
    calls = [*_calls(ast.parse(path.read_text()))]

    assert calls
    for call in calls:
        assert "extra" in {each.arg for each in call.keywords}, f"{path}:{call.lineno}"
        assert len(call.args) > 1, f"{path}:{call.lineno}: the text names nothing"


def test_no_other_logging() -> None:
    """There is no other way to log than the module's ``logger``."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "getLogger" not in text or "logger = logging.getLogger(__name__)" in text, path
        assert not any(f"logging.{level}(" in text for level in LEVELS), path


def test_fields() -> None:
    """Classes and models become names, keys become text, and every record has every field."""
    extra = fields(consumer=Path, model=Item, key=(1, "a"), alias="default", transaction=7)
    record = logging.getLogger("pgobserve").makeRecord(
        "pgobserve", logging.INFO, "", 0, "", (), None, extra=extra
    )

    assert [getattr(record, name) for name in FIELDS] == [
        *("Path", "project.Item", "(1, 'a')", "default", 7)
    ]
    assert fields() == dict.fromkeys(FIELDS)


SNIPPET = re.compile(r"^```python\n(LOGGING = .+?)^```$", re.MULTILINE | re.DOTALL)

TRIED = """
import logging, logging.config

{snippet}
logging.config.dictConfig(LOGGING)
from pgobserve.listen.listener import Listener
import asyncio

async def live():
    Listener(dict, "pgobserve", print, lambda gap: None)._connected()

asyncio.run(live())
"""


def test_snippet_shows_time_level_and_logger() -> None:
    """The ``LOGGING`` of the documentation shows when, how grave and from where a line is."""
    page = (PACKAGE.parent / "docs/how-to/monitor.md").read_text()
    (snippet,) = SNIPPET.findall(page)
    done = subprocess.run(
        [sys.executable, "-c", TRIED.format(snippet=snippet)],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )

    line = r"[-0-9]{10} [0-9:,]{12} INFO pgobserve\.\S+: The feed of database 'default' is live on .+\n"
    assert re.fullmatch(line, done.stderr), done.stderr
