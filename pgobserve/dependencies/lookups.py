"""What must be watched for names as filters and orderings have them: ``author__publisher__name``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgobserve.dependencies.attributes import kind_of
from pgobserve.dependencies.relations import PathNode, concrete, query_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pgobserve.dependencies.relations import Need

#: What DRF's SearchFilter allows in front of a name.
PREFIXES = "^=@$"


def ordered(spot: PathNode, order: Iterable[Any]) -> Iterator[Need]:
    """Yield what must be watched where related rows are shown in some order."""
    for entry in order:
        if isinstance(entry, str):
            end, needs = _looked_up(spot, entry.lstrip("-+"))
            yield from needs if end is None else end.row
        else:
            yield from spot.row  # an expression; it may look at any column


def filtered(cls: Any, queryset: Any, add_unseen: Callable[[str], None]) -> Iterator[Need]:
    """
    Yield what must be watched for whatever clients may filter by: fields of django-filter's filter
    sets, and DRF's ``search_fields``.

    Args:
        cls: A consumer's class.
        queryset: One of its querysets.
        add_unseen: Called with a sentence for each filter that can't be followed.
    """
    model = concrete(queryset.model)
    spot = PathNode(model, model)
    for name in _names(cls, queryset, add_unseen):
        end, needs = _looked_up(spot, name)
        yield from needs if end is None else end.key


def _names(cls: Any, queryset: Any, add_unseen: Callable[[str], None]) -> Iterator[str]:
    for backend in getattr(cls, "filter_backends", ()):
        if hasattr(backend, "get_filterset_class"):
            filters = getattr(backend().get_filterset_class(cls, queryset), "base_filters", {})
            for name, each in filters.items():
                yield str(each.field_name)
                if getattr(each, "method", None) is not None:
                    add_unseen(
                        f"The filter {name} of {cls.__name__} is a method: what it looks at can't "
                        "be seen."
                    )
        elif hasattr(backend, "get_search_fields"):
            for name in getattr(cls, "search_fields", None) or ():
                yield name.lstrip(PREFIXES)


def _looked_up(spot: PathNode, name: str) -> tuple[PathNode | None, tuple[Need, ...]]:
    """Return the spot that a name leads to, or None and what its column needs."""
    for part in name.split("__"):
        relation = query_names(spot.model).get(part)
        if relation is None:
            fields = kind_of(spot.model, part)[1]
            return None, (spot.value(fields[0]) if fields else spot.row)
        spot = spot.follow(relation)
    return spot, spot.needs
