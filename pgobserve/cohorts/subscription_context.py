"""The context of a subscription: what the stages above the hub know of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pgobserve.cohorts.guard import Guard
from pgobserve.logs import fields
from pgobserve.sql.keys import shown

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pgobserve.cohorts.cohort import Cohort
    from pgobserve.cohorts.visibility import Visibility
    from pgobserve.hub.hub import TableDependencies
    from pgobserve.hub.subscriptions import (
        Deliverable,
        ListItemUpdate,
        ListSubscription,
        RowSubscription,
    )
    from pgobserve.sql.relation_path import RelationPath


@dataclass(slots=True, eq=False)
class SubscriptionContext:
    """
    What the stages above the hub know of one subscription.

    Attributes:
        visibility: What the subscriber may see.
        request_id_text: The subscription's request id, as JSON.
        wants_etag: Whether each frame that shows the row has an etag.
        lookup: The value by which the client named the row, as JSON.
        alias: The database alias whose feed serves it.
        custom_delivery: Whether the consumer's own methods read and show the row.
        hidden: Whether such a consumer has already reported the row as gone.
        held: The etag with which the client of such a consumer returned.
        named_by: The field that names rows to clients; None for the primary key.
        action: The action that started the subscription.
        paths: Paths to other tables that the consumer observes, besides what its rows show.
        size: Length of its arguments as JSON.
    """

    visibility: Visibility
    request_id_text: str
    wants_etag: bool
    lookup: str
    alias: str
    size: int
    custom_delivery: bool = False
    hidden: bool = False
    held: str | None = None
    named_by: str | None = None
    action: str = "subscribe_instance"
    paths: tuple[RelationPath, ...] = ()
    _guard: Guard = field(init=False)

    def __post_init__(self) -> None:
        self._guard = Guard(self.visibility.consumer, custom_delivery=self.custom_delivery)
        self.visibility.on_rebuild = self._guard.examine

    @property
    def guard(self) -> Guard:
        """The permissions of this subscription. No other subscription can have the same guard."""
        return self._guard

    @property
    def consumer_class(self) -> type:
        """The class whose hooks the subscription runs."""
        return type(self.visibility.consumer)

    def shown(self, key: Hashable) -> Any:
        """Return the key of one of its rows as frames show it."""
        return shown(self.visibility.source.statement.model, key, self.alias)

    def about(self, key: object = None) -> dict[str, object]:
        """Return the fields of a log line about a row of the subscription."""
        return fields(
            consumer=self.consumer_class,
            model=self.visibility.source.statement.model,
            key=key,
            alias=self.alias,
        )

    def subject(self, source: Cohort) -> TableDependencies:
        """Return which changes concern the subscription's rows when a cohort reads them."""
        if not self.paths:
            return source.subject
        paths = dict.fromkeys((*source.subject.paths, *self.paths))
        return replace(source.subject, paths=tuple(paths))


def context_of(
    watch: RowSubscription | ListSubscription | ListItemUpdate | Deliverable,
) -> SubscriptionContext:
    """
    Return the context of a subscription.

    The hub is pure and keeps contexts as plain objects. They regain their type here and nowhere else.
    """
    context = watch.context
    assert isinstance(context, SubscriptionContext)  # noqa: S101 (subscriptions are made with one)
    return context
