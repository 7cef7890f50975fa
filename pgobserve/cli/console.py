"""The output of sub-commands."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.core.management.base import OutputWrapper
    from django.core.management.color import Style

#: Exit codes of all sub-commands, beside 0 for success.
EXIT_NOT_WELL = 1
EXIT_FAILED = 2


@dataclass(frozen=True, slots=True)
class Console:
    """The command's streams: ``out`` for results, ``err`` for progress and errors."""

    out: OutputWrapper
    err: OutputWrapper
    style: Style

    def write(self, text: str, style: str = "") -> None:
        """Write a line, in the colours of a style on a terminal."""
        self.out.write(self.painted(text, style))

    def painted(self, text: str, style: str) -> str:
        """Return the text, in the colours of a style on a terminal."""
        return getattr(self.style, style)(text) if style and self.out.isatty() else text

    def warn(self, text: str | None) -> None:
        """Write a warning to the error stream, unless it is None."""
        if text is not None:
            self.err.write(text, self.style.WARNING if self.err.isatty() else None)

    def json(self, value: Any) -> None:
        self.out.write(json.dumps(value, indent=2))

    def table(self, rows: Sequence[Sequence[str]], styles: Sequence[str]) -> None:
        """Write rows in columns. The first row is the heading; each other row has a style."""
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row, style in zip(rows, ("HTTP_INFO", *styles), strict=True):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.write("  ".join(cells).rstrip(), style)
