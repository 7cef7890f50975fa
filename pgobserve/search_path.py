"""Parse the text of a ``search_path``."""

from __future__ import annotations

import re
from typing import Final

_ELEMENTS: Final = re.compile(r'\s*("(?:[^"]|"")*"|[^,]*)\s*(?:,|$)')

_OPTION: Final = re.compile(r"(?:^|\s)(?:-c\s*|--)search_path\s*=\s*((?:\\.|[^\s\\])*)")


def first_schema(search_path: str) -> str:
    """
    Return the first schema of a ``search_path``; empty for ``public`` or none.

    The role's own schema, ``"$user"``, is skipped, because one project may use several roles.
    """
    for element in _ELEMENTS.findall(search_path):
        quoted = element.startswith('"') and element.endswith('"') and len(element) > 1
        name = element[1:-1].replace('""', '"') if quoted else element.strip().lower()
        if name and name != "$user":
            return "" if name == "public" or name.startswith("pg_") else name
    return ""


def of_options(options: str) -> str:
    """Return the ``search_path`` in libpq's ``options``, ``-c search_path=shop``; empty if none."""
    found = _OPTION.findall(options)
    return re.sub(r"\\(.)", r"\1", found[-1]) if found else ""
