"""What a sub-command is given to talk with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.core.management.base import OutputWrapper
    from django.core.management.color import Style

#: Exit codes, the same for all sub-commands.
EXIT_OK = 0
EXIT_NOT_WELL = 1
EXIT_FAILED = 2


@dataclass(frozen=True, slots=True)
class Console:
    """
    The command's two streams and its colours.

    Attributes:
        out: For what was asked.
        err: For progress and errors.
        style: Django's colours; used only on a terminal.
    """

    out: OutputWrapper
    err: OutputWrapper
    style: Style

    def write(self, text: str, style: str = "") -> None:
        """Write a line, coloured by the name of a style if a terminal reads it."""
        self.out.write(self.painted(text, style))

    def painted(self, text: str, style: str) -> str:
        """Return the text in the colours of a style, or as it is if no terminal reads it."""
        return getattr(self.style, style)(text) if style and self.out.isatty() else text

    def warn(self, text: str | None) -> None:
        """Write a warning beside what was asked; None is none."""
        if text is not None:
            self.err.write(text, self.style.WARNING if self.err.isatty() else None)

    def json(self, facts: Any) -> None:
        """Write facts for a machine."""
        self.out.write(json.dumps(facts, indent=2))

    def table(self, rows: Sequence[Sequence[str]], styles: Sequence[str]) -> None:
        """Write rows in columns; the first row is the heading, ``styles`` are for the others."""
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row, style in zip(rows, ("HTTP_INFO", *styles), strict=True):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.write("  ".join(cells).rstrip(), style)
