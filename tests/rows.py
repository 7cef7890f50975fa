"""A feed's sources that are only rows, for tests of what is below the surface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pgobserve.hub.load_requests import LoadRequest, LoadResult


class Rows:
    """What a loader reads, by one function."""

    def __init__(self, load: Callable[[Sequence[LoadRequest]], Sequence[LoadResult]]) -> None:
        self._load = load

    def load(self, jobs: Sequence[LoadRequest]) -> Sequence[LoadResult]:
        return self._load(jobs)

    def load_lists(self, jobs: Any) -> Any:
        raise NotImplementedError

    def resolve(self, lookup: Any) -> Any:
        raise NotImplementedError

    def owner(self, subscription: Any) -> type:
        return type(subscription.context)

    def label(self, subscription: Any) -> str:
        return "project.Item"
