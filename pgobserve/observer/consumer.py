"""The base of consumers with subscriptions."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pgobserve._consumer.inbox import together
from pgobserve.cohorts.subscription_context import context_of
from pgobserve.dependencies import row_dependencies
from pgobserve.dependencies.gathering import Dependencies
from pgobserve.install.consumer_registry import observe
from pgobserve.observer.handlers import ObserverAPIConsumerMetaclass
from pgobserve.subscribe.settling import settle
from pgobserve.subscribe.socket_subscriptions import Subscriptions
from pgobserve.subscribe.subscription_set import encode_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from django.db.models import Model

    from pgobserve.generics import GenericAsyncAPIConsumer

    _Base = GenericAsyncAPIConsumer
else:
    from pgobserve._consumer.json_socket import SocketHooks as _Base


class ObserverConsumerMixin(_Base, metaclass=ObserverAPIConsumerMetaclass):
    """
    A consumer with subscriptions, which end with the socket.

    Frames wait while a message is handled, so that a reply precedes the frames that it caused.

    Attributes:
        observe_related: Observed relations besides those that the serializer shows: paths to related
            rows (``"author.publisher"``), and models whose changes concern all rows. A path with ``-``
            before it is not observed. None: no relation that the serializer shows is observed.
    """

    observe_related: Sequence[Any] | None = ()

    _answers_settled: ClassVar[bool] = True  # see `pgobserve._consumer.inbox.MARKER`

    _subscribed: Subscriptions | None = None
    _group_requests: dict[str, set[Any]] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        observe(cls)

    @classmethod
    def observed_models(cls) -> list[type[Model]]:
        """Return the models whose rows clients may subscribe to, as far as they are known."""
        return []

    @classmethod
    def observed_dependencies(cls) -> Dependencies:
        """Return the other tables that those rows depend on, as far as they are known."""
        return row_dependencies.of_consumer(cls) if cls.observed_models() else Dependencies()

    @property
    def subscriptions(self) -> Subscriptions:
        """The subscriptions of this socket."""
        if self._subscribed is None:
            self._subscribed = Subscriptions(self)
        return self._subscribed

    async def _settle(self) -> None:
        """Return when everything that was committed before this call has been sent to this socket."""
        works = [super()._settle()]
        if self._subscribed is not None:
            works.append(settle(self._subscribed))
        await together(works)

    # Names of DCRF that other packages use

    @property
    def group_requests(self) -> dict[str, set[Any]]:
        """The request ids that the project's own actions have added to groups."""
        if self._group_requests is None:
            self._group_requests = {}
        return self._group_requests

    @property
    def subscribed_requests(self) -> dict[str, set[Any]]:
        """The request ids of the subscriptions to rows, by a name of the row or its group."""
        found: dict[str, set[Any]] = {}
        for watch in [] if self._subscribed is None else self._subscribed.rows.all:
            if watch.request_id not in self.group_requests:
                found.setdefault(context_of(watch).lookup, set()).add(
                    _hashable(json.loads(context_of(watch).request_id_text))
                )
        return {**found, **self.group_requests}

    def _subscribe(self, request_id: Any, groups: Iterable[str]) -> None:
        """Let a request id receive the changes of groups."""
        for group in groups:
            self.group_requests.setdefault(group, set()).add(request_id)

    def _unsubscribe(self, request_id: Any) -> None:
        """End all subscriptions with a request id."""
        self.subscriptions.rows.end_request(request_id)
        self._leave_groups(request_id)

    def _leave_groups(self, request_id: Any) -> None:
        for ids in self.group_requests.values():
            ids.discard(_hashable(request_id))
        self._unsubscribe_groups([group for group, ids in self.group_requests.items() if not ids])

    def _unsubscribe_groups(self, groups: Iterable[str]) -> None:
        """End all subscriptions to groups that the project's own actions have started."""
        for group in groups:
            self.group_requests.pop(group, None)
            self.subscriptions.rows.end_request(group)

    def _requests_for(self, group: Any) -> set[Any]:
        """Return the request ids of a group; without a group, of all."""
        if not group:
            return set().union(*self.group_requests.values())
        return set(self.group_requests.get(group, ()))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Hold the feed's frames until the message has been handled."""
        send_queue = self.subscriptions.send_queue
        send_queue.hold()
        try:
            async with super().serving():
                yield
        finally:
            send_queue.release()

    async def closed(self) -> None:
        """End all subscriptions."""
        if self._subscribed is not None:
            await self._subscribed.aclose()
        await super().closed()


def declared_model(cls: type) -> type[Model] | None:
    """Return the model of a consumer class's queryset, or else of its serializer."""
    return row_dependencies.model_of_consumer(cls)


def _hashable(value: Any) -> Any:
    return value if value.__hash__ else encode_name(value)
