"""Which renderer a consumer's rows have, and which consumers share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from pgobserve.render.own_hooks import (
    found,
    maker,
    meta_of,
    writes,
)
from pgobserve.render.rendering import (
    KeyRenderer,
    Renderer,
    context_keys,
    is_bespoke,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pgobserve.generics import GenericAsyncAPIConsumer

_renderers: WeakValueDictionary[Hashable, Renderer] = WeakValueDictionary()


class MadeBy(NamedTuple):
    """
    How serializers are made: what decides, with their class, that two show a row in the same way.

    Attributes:
        bespoke: Each is made by the consumer itself.
        written: ``get_serializer_class`` writes into what others use as well. That is right only just
            after that consumer's hook has run, so each is made anew, and they take turns.
        keys: Keys of their context, where they are known.
        maker: The methods that make them.
        meta: What the class's ``Meta`` says.
    """

    bespoke: bool
    written: bool
    keys: frozenset[str] | None
    maker: tuple[Any, ...]
    meta: Hashable


def made_by(consumer: GenericAsyncAPIConsumer, serializer_class: Any) -> MadeBy:
    """Return how a consumer's serializers are made, now."""
    written = writes(found(consumer, "get_serializer_class")[0])
    return MadeBy(
        is_bespoke(consumer) or written,
        written,
        context_keys(consumer),
        maker(consumer),
        meta_of(serializer_class),
    )


def renderer_of(
    serializer_class: Any, how: MadeBy, context: Hashable, named_by: str | None = None
) -> Renderer | KeyRenderer:
    """
    Return how rows are shown.

    Consumers that show other rows in the same way share it, and with it what it makes of a row that
    both have. It keeps serializers, whose fields may be made in the language of the context.

    Args:
        serializer_class: None where only keys are shown.
        how: How its instances are made.
        context: What tells the Python context from others.
        named_by: The field that names rows to clients; None for the primary key.
    """
    if serializer_class is None:
        return KeyRenderer(named_by)
    identity = serializer_class, how, context
    renderer = _renderers.get(identity)
    if renderer is None:
        made = Renderer(serializer_class, bespoke=how.bespoke, keys=how.keys, turns=how.written)
        renderer = _renderers.setdefault(identity, made)
    return renderer
