"""
A serializer context that knows whether it was looked at.

One serialization may serve every socket that sees the same row, unless the serializer asked who is
looking. Nobody has to declare that: the context records it. It holds nothing of anybody itself, so
whatever goes round its methods finds nothing, and never another user's data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Set

#: The one key that goes round the methods find.
NOT_LOOKED_UP = "pgobserve: not looked up"


class RecordingContext(dict[str, Any]):
    """
    What ``self.context`` is while a row is rendered for the feed.

    Args:
        build: Makes the context of the audience at hand; called at the first look.
        keys: The keys that it will have, where they are known: a look for another key finds
            nothing for anybody, and so tells nothing about the audience. None if not known.

    Attributes:
        looked: Whether the serializer has seen anything that may differ between audiences.
    """

    def __init__(
        self, build: Callable[[], Mapping[str, Any]], keys: Set[str] | None = None
    ) -> None:
        # Not empty: json's encoder in C would take an empty dictionary at its word.
        super().__init__({NOT_LOOKED_UP: None})
        self.looked = False
        self._build = build
        self._keys = keys
        self._real: dict[str, Any] | None = None

    def aim(self, build: Callable[[], Mapping[str, Any]]) -> None:
        """Make it the context of another audience, not looked at."""
        self._build, self._real, self.looked = build, None, False

    def _look(self) -> dict[str, Any]:
        self.looked = True
        if self._real is None:
            self._real = dict(self._build())
        return self._real

    def _tells_nothing(self, key: object) -> bool:
        return self._keys is not None and key not in self._keys and self._real is None

    def __getitem__(self, key: str) -> Any:
        if self._tells_nothing(key):
            raise KeyError(key)
        return self._look()[key]

    def get(self, key: str, default: Any = None) -> Any:
        return default if self._tells_nothing(key) else self._look().get(key, default)

    def __contains__(self, key: object) -> bool:
        return False if self._tells_nothing(key) else key in self._look()

    def __setitem__(self, key: str, value: Any) -> None:
        self._look()[key] = value

    def __delitem__(self, key: str) -> None:
        del self._look()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._look())

    def __len__(self) -> int:
        return len(self._look())

    def __bool__(self) -> bool:
        return bool(self._look())

    def __eq__(self, other: object) -> bool:
        return self._look() == other

    def __ne__(self, other: object) -> bool:
        return self._look() != other

    __hash__ = None

    def __or__(self, other: Any) -> Any:
        return self._look() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._look()

    def __ior__(self, other: Any) -> Any:
        self._look().update(other)
        return self

    def __repr__(self) -> str:
        return f"<serializer context, {'looked at' if self.looked else 'not looked at'}>"

    def keys(self) -> Any:
        return self._look().keys()

    def values(self) -> Any:
        return self._look().values()

    def items(self) -> Any:
        return self._look().items()

    def copy(self) -> dict[str, Any]:
        return self._look().copy()

    def pop(self, *args: Any) -> Any:
        return self._look().pop(*args)

    def popitem(self) -> Any:
        return self._look().popitem()

    def setdefault(self, *args: Any) -> Any:
        return self._look().setdefault(*args)

    def update(self, *args: Any, **kwargs: Any) -> None:
        self._look().update(*args, **kwargs)

    def clear(self) -> None:
        self._look().clear()

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._look())

    def __copy__(self) -> dict[str, Any]:
        return self._look().copy()

    def __deepcopy__(self, memo: object) -> RecordingContext:
        # DRF copies declared fields deeply; a context is shared by all that are copied.
        return self

    def __reduce__(self) -> Any:
        return dict, (self._look(),)
