"""Dependencies in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgobserve.cli.deps import path_of
from pgobserve.dependencies.row_dependencies import shown

if TYPE_CHECKING:
    from pgobserve.dependencies.gathering import Dependencies


def told(found: Dependencies) -> list[str]:
    """Return the tables in words: the path, the model, and the column that leads back."""
    paths = [
        f"{path_of(path)} {path.joins[-1].model.__name__}"
        + ("" if path.column is None else f" by {path.column}")
        for path in found.paths
    ]
    return [*paths, *(f"all of {model.__name__}" for model in found.full_refresh)]


def of_serializer(model: Any, serializer: Any, prefetches: Any = ()) -> Dependencies:
    """Return the dependencies of what a serializer shows of a model's rows."""
    return shown(object, model._base_manager.prefetch_related(*prefetches), serializer)
