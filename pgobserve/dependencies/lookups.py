"""Dependencies of names in filters and orderings, such as ``author__publisher__name``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgobserve.dependencies.attributes import kind_of
from pgobserve.dependencies.relations import PathNode, concrete, query_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pgobserve.dependencies.relations import Dependency

#: Prefixes of names for DRF's SearchFilter.
PREFIXES = "^=@$"


def ordered(node: PathNode, order: Iterable[Any]) -> Iterator[Dependency]:
    """Yield the dependencies of the order of related rows."""
    for entry in order:
        if isinstance(entry, str):
            end, dependencies = _looked_up(node, entry.lstrip("-+"))
            yield from dependencies if end is None else end.row
        else:
            yield from node.row  # an expression, which may read any column


def filtered(
    cls: Any, queryset: Any, add_unresolved: Callable[[str], None]
) -> Iterator[Dependency]:
    """
    Yield the dependencies of filters for clients: django-filter's filter sets, DRF's ``search_fields``.

    Args:
        cls: A consumer class.
        queryset: One of its querysets.
        add_unresolved: Receives a sentence for each filter that can't be followed.
    """
    model = concrete(queryset.model)
    node = PathNode(model, model)
    for name in _names(cls, queryset, add_unresolved):
        end, dependencies = _looked_up(node, name)
        yield from dependencies if end is None else end.key


def _names(cls: Any, queryset: Any, add_unresolved: Callable[[str], None]) -> Iterator[str]:
    for backend in getattr(cls, "filter_backends", ()):
        if hasattr(backend, "get_filterset_class"):
            filters = getattr(backend().get_filterset_class(cls, queryset), "base_filters", {})
            for name, each in filters.items():
                yield str(each.field_name)
                if getattr(each, "method", None) is not None:
                    add_unresolved(
                        f"The filter {name} of {cls.__name__} is a method: what it reads can't "
                        "be seen."
                    )
        elif hasattr(backend, "get_search_fields"):
            for name in getattr(cls, "search_fields", None) or ():
                yield name.lstrip(PREFIXES)


def _looked_up(node: PathNode, name: str) -> tuple[PathNode | None, tuple[Dependency, ...]]:
    """Return the node that a name leads to and its dependencies; for a column None and the column's."""
    for part in name.split("__"):
        relation = query_names(node.model).get(part)
        if relation is None:
            fields = kind_of(node.model, part)[1]
            return None, (node.value(fields[0]) if fields else node.row)
        node = node.follow(relation)
    return node, node.dependencies
