"""
A serializer context that records whether it was read.

One serialization may serve every socket that sees the row, unless the serializer read the context: the
user, say. The dictionary itself stays empty, so code that bypasses its methods, as C code may, finds
nothing, and never another user's data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Set

#: The only key that code finds which bypasses the methods.
NOT_LOOKED_UP = "pgobserve: not looked up"


def _delegate(name: str) -> Any:
    def method(self: TrackingContext, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._access(), name)(*args, **kwargs)

    return method


class TrackingContext(dict[str, Any]):
    """
    The ``self.context`` of serializers that render for the feed.

    Args:
        build: Builds the subscriber's context; called at the first access.
        keys: The context's keys, if known. Looking up another key finds nothing for any subscriber,
            so it does not count as an access.

    Attributes:
        accessed: Whether the serializer has read anything that may differ between subscribers.
    """

    def __init__(
        self, build: Callable[[], Mapping[str, Any]], keys: Set[str] | None = None
    ) -> None:
        # Not empty, because json's C encoder checks for an empty dictionary without calling methods.
        super().__init__({NOT_LOOKED_UP: None})
        self.accessed = False
        self._build = build
        self._keys = keys
        self._real: dict[str, Any] | None = None

    def reset(self, build: Callable[[], Mapping[str, Any]]) -> None:
        """Make this another subscriber's context, not accessed yet."""
        self._build, self._real, self.accessed = build, None, False

    def _access(self) -> dict[str, Any]:
        self.accessed = True
        if self._real is None:
            self._real = dict(self._build())
        return self._real

    def _is_missing(self, key: object) -> bool:
        return self._keys is not None and key not in self._keys and self._real is None

    # These may look up a key that no subscriber's context has.

    def __getitem__(self, key: str) -> Any:
        if self._is_missing(key):
            raise KeyError(key)
        return self._access()[key]

    def get(self, key: str, default: Any = None) -> Any:
        return default if self._is_missing(key) else self._access().get(key, default)

    def __contains__(self, key: object) -> bool:
        return False if self._is_missing(key) else key in self._access()

    # All others, and those set below, read the context.

    __hash__ = None
    __copy__ = copy = _delegate("copy")

    def __bool__(self) -> bool:
        return bool(self._access())

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc]
        self._access().update(other)
        return self

    def __repr__(self) -> str:
        return f"<serializer context, {'accessed' if self.accessed else 'not accessed'}>"

    def __deepcopy__(self, memo: object) -> TrackingContext:
        # DRF deep-copies declared fields; the copies share the context.
        return self

    def __reduce__(self) -> Any:
        return dict, (self._access(),)


for _name in (
    *("__setitem__", "__delitem__", "__iter__", "__reversed__", "__len__", "__eq__", "__ne__"),
    *("__or__", "__ror__", "keys", "values", "items", "pop", "popitem", "setdefault", "update"),
    "clear",
):
    setattr(TrackingContext, _name, _delegate(_name))
