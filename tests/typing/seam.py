"""
The seam between the pure hub and the stages above it, as a type checker sees it.

``tests/unit/test_typing.py`` checks it with mypy, strictly: an error that is ignored here and is not one
any more fails. Nothing here is run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve.cohorts.guard import Guard
from pgobserve.cohorts.subscription_context import SubscriptionContext, context_of

if TYPE_CHECKING:
    from pgobserve.cohorts.visibility import Visibility
    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.hub.load_requests import LoadRequest
    from pgobserve.hub.subscriptions import RowSubscription


def plain(watch: RowSubscription, request: LoadRequest) -> None:
    """The hub's context is a plain object: without its type nothing of it can be used."""
    _ = watch.context.guard  # type: ignore[attr-defined]
    _ = request.watches[0].context.visibility  # type: ignore[attr-defined]


def typed(watch: RowSubscription) -> Guard:
    """One function gives it its type."""
    _ = context_of(watch).gard  # type: ignore[attr-defined]
    return context_of(watch).guard


def lend(watch: RowSubscription, other: RowSubscription) -> None:
    """The guard of one subscription can't become another's."""
    context_of(watch).guard = context_of(other).guard  # type: ignore[misc]


def share(visibility: Visibility, consumer: GenericAsyncAPIConsumer) -> SubscriptionContext:
    """A subscription can't be made with a guard that exists."""
    guard = Guard(consumer)
    return SubscriptionContext(visibility, "1", False, "1", "default", 0, guard=guard)  # type: ignore[call-arg]
