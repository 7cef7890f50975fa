"""Dependencies in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve.install.path_text import path_of

if TYPE_CHECKING:
    from pgobserve.dependencies.row_dependencies import Dependencies


def told(found: Dependencies) -> list[str]:
    """Return the tables in words: the path, the model, and the column that leads back."""
    links = [
        f"{path_of(link)} {link.hops[-1].model.__name__}"
        + ("" if link.column is None else f" by {link.column}")
        for link in found.links
    ]
    return [*links, *(f"all of {model.__name__}" for model in found.wide)]
