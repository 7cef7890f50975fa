"""What sub-commands talk with."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management.base import OutputWrapper
from django.core.management.color import make_style

from pgobserve.cli.console import Console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _console(out: io.StringIO) -> Console:
    return Console(OutputWrapper(out), OutputWrapper(io.StringIO()), make_style("dark"))


@pytest.mark.parametrize(("stream", "coloured"), [(Terminal, True), (io.StringIO, False)])
def test_colours(stream: type[io.StringIO], coloured: bool) -> None:
    """Only a terminal gets colours."""
    out = stream()
    _console(out).write("done", "SUCCESS")

    assert ("\x1b[" in out.getvalue()) is coloured
    assert "done" in out.getvalue()


def test_table() -> None:
    """Rows stand in columns, without spaces at the end."""
    out = io.StringIO()
    _console(out).table([("A", "B"), ("long one", ""), ("x", "y")], ["SUCCESS", "ERROR"])

    assert out.getvalue() == "A         B\nlong one\nx         y\n"


def test_json() -> None:
    """Facts for a machine are JSON."""
    out = io.StringIO()
    _console(out).json([{"a": None}])

    assert json.loads(out.getvalue()) == [{"a": None}]
