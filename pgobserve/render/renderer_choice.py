"""Chooses the renderer of a consumer's rows, which consumers may share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from pgobserve.render.own_hooks import meta_of, serializer_hooks, stored, writes
from pgobserve.render.rendering import (
    KeyRenderer,
    Renderer,
    context_keys,
    encode,
    encoder_of,
    is_bespoke,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from pgobserve.generics import GenericAsyncAPIConsumer

_renderers: WeakValueDictionary[Hashable, Renderer] = WeakValueDictionary()


class MadeBy(NamedTuple):
    """
    How a consumer makes serializers; equal values of one class render rows alike.

    Attributes:
        bespoke: The consumer's own method makes each serializer.
        written: ``get_serializer_class`` writes to shared objects. They are right only just after the
            hook has run, so each serializer is made anew, one thread at a time.
        keys: Keys of the serializer context, if known.
        hooks: The methods that make serializers.
        meta: The contents of the class's ``Meta``.
        encoder: Encodes what the serializer returns.
    """

    bespoke: bool
    written: bool
    keys: frozenset[str] | None
    hooks: tuple[Any, ...]
    meta: Hashable
    encoder: Callable[[Any], str] = encode

    def options(self) -> dict[str, Any]:
        """Return the options of a renderer."""
        return {
            "bespoke": self.bespoke,
            "keys": self.keys,
            "turns": self.written,
            "encoder": self.encoder,
        }


def made_by(consumer: GenericAsyncAPIConsumer, serializer_class: Any) -> MadeBy:
    """Return how a consumer makes serializers now."""
    written = writes(stored(consumer, "get_serializer_class")[0])
    return MadeBy(
        is_bespoke(consumer) or written,
        written,
        context_keys(consumer),
        serializer_hooks(consumer),
        meta_of(serializer_class),
        encoder_of(consumer),
    )


def renderer_of(
    serializer_class: Any, how: MadeBy, context: Hashable, named_by: str | None = None
) -> Renderer | KeyRenderer:
    """
    Return the renderer for rows.

    Consumers that render alike share it, and with it the renderings of rows that both show. It keeps
    serializers, whose fields may be built in the context's language.

    Args:
        serializer_class: None to render keys only.
        how: How the consumer makes serializers.
        context: Identifies the Python context.
        named_by: The field that names rows to clients; None for the primary key.
    """
    if serializer_class is None:
        return KeyRenderer(named_by)
    identity = serializer_class, how, context
    renderer = _renderers.get(identity)
    if renderer is None:
        made = Renderer(serializer_class, **how.options())
        renderer = _renderers.setdefault(identity, made)
    return renderer
