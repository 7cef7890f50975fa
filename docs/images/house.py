"""
Draw the house: a box for each folder, in the order of the import contracts, with its arrows.

Run ``python docs/images/house.py`` after a change of the contracts. The layers come from
``pyproject.toml``, the arrows from the package's imports, those for type checking included. An arrow is
left out where a longer way leads to the same folder.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

import grimp

ROOT: Final = Path(__file__).parents[2]
PICTURE: Final = Path(__file__).with_name("house.svg")

#: The base classes that users' consumers derive from: one box.
SURFACE: Final = {"generics", "decorators", "consumers", "permissions", "pagination"}
#: What has no stage of its own: values, settings and entrances.
LEFT_OUT: Final = {
    *("__main__", "apps", "checks", "conf", "logs", "errors", "wire", "search_path", "_json"),
    *("management", "migrations", "demo", "mixins", "testing", "monitoring", "mute"),
    *("scope_utils", "settings", "exceptions"),
}

WIDTH: Final = 860
BOX: Final = (150, 46)
STEP: Final = 78
STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#1b2733}"
    ".small{font-size:11px;fill:#5b6b7a}"
    "rect{fill:#eef4fb;stroke:#4f7cac;rx:6}"
    "path{fill:none;stroke:#7d8fa1;stroke-width:1.2;marker-end:url(#end)}"
)


def layers() -> list[list[str]]:
    """Return the folders of each layer that is drawn, from the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    rows: list[list[str]] = []
    for layer in contracts["contracts"][0]["layers"]:
        names = [_box(name.strip()) for name in layer.split("|")]
        drawn = [name for name in dict.fromkeys(names) if name and not any(name in r for r in rows)]
        if drawn:
            rows.append(drawn)
    return rows


def _box(module: str) -> str | None:
    if module in LEFT_OUT:
        return None
    return "consumers" if module in SURFACE else module


def arrows() -> set[tuple[str, str]]:
    """Return which folder imports which, without the arrows that a longer way replaces."""
    graph = grimp.build_graph("pgobserve", exclude_type_checking_imports=False)
    found: set[tuple[str, str]] = set()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            ends = [_box([*name.split("."), ""][1]) for name in (module, imported)]
            if ends[0] and ends[1] and ends[0] != ends[1]:
                found.add((ends[0], ends[1]))
    return {arrow for arrow in found if not _is_implied(arrow, found)}


def _is_implied(arrow: tuple[str, str], found: set[tuple[str, str]]) -> bool:
    start, end = arrow
    reached, waiting = set(), [b for a, b in found if a == start and b != end]
    while waiting:
        name = waiting.pop()
        if name == end:
            return True
        if name not in reached:
            reached.add(name)
            waiting += [b for a, b in found if a == name]
    return False


def draw() -> str:
    """Return the picture as SVG."""
    rows = layers()
    place: dict[str, tuple[float, float]] = {}
    for number, row in enumerate(rows):
        # Layers of one box alternate, so that arrows over several layers stay visible.
        shift = (0, -170, 170)[number % 3] if len(row) == 1 else 0
        for column, name in enumerate(row):
            middle = WIDTH / 2 + (column - (len(row) - 1) / 2) * (BOX[0] + 60) + shift
            place[name] = (middle, 20 + number * STEP)
    lines = [_arrow(place[a], place[b]) for a, b in sorted(arrows()) if a in place and b in place]
    boxes = [_drawn(name, *at) for name, at in place.items()]
    height = 20 + len(rows) * STEP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="The folders of pgobserve and their imports"><style>{STYLE}</style>'
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0,0L8,4L0,8z" style="fill:#7d8fa1;stroke:none"/></marker></defs>'
        '<rect x="0" y="0" width="100%" height="100%" style="fill:#fff;stroke:none"/>'
    )
    return "\n".join([head, *lines, *boxes, "</svg>", ""])


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x, y), (to_x, to_y) = (start[0], start[1] + BOX[1]), end
    bend = (to_y - y) / 2
    return f'<path d="M{x:g},{y:g}C{x:g},{y + bend:g} {to_x:g},{to_y - bend:g} {to_x:g},{to_y:g}"/>'


def _drawn(name: str, x: float, y: float) -> str:
    count = len([*(ROOT / "pgobserve" / name).rglob("*.py")])
    size = f"{count - 1} modules" if count else "generics, permissions …"
    return (
        f'<rect x="{x - BOX[0] / 2:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}"/>'
        f'<text x="{x:g}" y="{y + 20:g}" text-anchor="middle">{escape(name)}</text>'
        f'<text class="small" x="{x:g}" y="{y + 36:g}" text-anchor="middle">{size}</text>'
    )


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PICTURE.write_text(draw())
    print(PICTURE.relative_to(ROOT))  # noqa: T201
