"""What consumers derive from to let clients subscribe to lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from rest_framework import status
from rest_framework.exceptions import ValidationError

from pgobserve import conf
from pgobserve.decorators import action
from pgobserve.deliver.subscribe_arguments import encode_name
from pgobserve.observer.consumer import ObserverConsumerMixin, declared_model

if TYPE_CHECKING:
    from django.db.models import Model

    from pgobserve.cohorts.cohort import Wanted
    from pgobserve.hub.list_subscription import ListSnapshot

#: What a client may ask for in place of the rows.
ONLY: Final = ("keys", "count")


class ObserverModelListMixin(ObserverConsumerMixin):
    """
    Lets clients subscribe to lists: the actions ``subscribe_list`` and ``unsubscribe_list``.

    A list is what ``get_queryset`` and ``filter_queryset`` return for the client, filter backends,
    which are fed from ``"query"``, included. A subscriber gets it as it was at one instant, and from
    then on ``create``, ``update`` and ``delete`` as rows enter, change and leave.

    Attributes:
        max_rows: Rows in one frame; a list of more comes in several, all but the last of which
            have ``"more": true``. A frame has fewer rows if they are long. A client may request
            fewer by ``"max_rows"``.

    Example:
        >>> class BookConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
        ...     queryset = Book.objects.filter(published=True)
        ...     serializer_class = BookSerializer
        ...     filter_backends = [SearchFilter]
        ...     search_fields = ["title"]
    """

    max_rows: int = 1000

    @classmethod
    def observed_models(cls) -> list[type[Model]]:
        """Return the model of the queryset, or else of the serializer."""
        model = declared_model(cls)
        return [*super().observed_models(), *([] if model is None else [model])]

    @action()
    async def subscribe_list(
        self,
        request_id: Any = None,
        only: Any = None,
        max_rows: Any = None,
        have: Any = None,
        **kwargs: Any,
    ) -> None:
        """
        Subscribe to a list.

        Args:
            request_id: The client's name for the subscription; required. One that it has already
                is replaced.
            only: ``"keys"`` for the rows' keys alone, ``"count"`` for their number.
            max_rows: Rows in one frame at most.
            have: The rows that a returning client holds: an object of etags by key. The reply has
                no rows, and what differs follows as ``create``, ``update`` and ``delete``.
            **kwargs: Reach ``get_queryset`` and ``filter_queryset``, ``"query"`` among them.
        """
        asked = self._asked(request_id, only, max_rows, have)
        hooks = {**kwargs, "request_id": request_id, "action": "subscribe_list"}
        listed = await self.subscriptions.lists.start(
            declared_model(type(self)), hooks, wanted=asked.wanted, have=have
        )
        await self.subscriptions.settle()  # of a list that this one replaces, say
        try:
            await self._answer_list(asked, listed)
        except Exception:
            # The client receives an error, and must not have a subscription with it.
            self.subscriptions.lists.end(request_id)
            raise

    @action()
    async def unsubscribe_list(self, request_id: Any = None, **kwargs: Any) -> tuple[None, int]:
        """End the subscription to a list that was made by a request id."""
        if request_id is None:
            raise ValidationError(['"request_id" is required.'])
        self.subscriptions.lists.end(request_id)
        await self.subscriptions.settle()
        return None, status.HTTP_204_NO_CONTENT

    def _asked(self, request_id: Any, only: Any, max_rows: Any, have: Any) -> _ListRequest:
        if request_id is None:
            raise ValidationError(['"request_id" is required.'])
        if only is not None and only not in ONLY:
            raise ValidationError([f'"only" must be one of {", ".join(ONLY)}, or left out.'])
        size = self.max_rows
        if max_rows is not None:
            if isinstance(max_rows, bool) or not isinstance(max_rows, int) or max_rows < 1:
                raise ValidationError(['"max_rows" must be a whole number of at least 1.'])
            size = min(size, max_rows)
        wanted = cast("Wanted", only or "rows")
        if have is not None:
            _check_have(have, wanted)
        return _ListRequest(encode_name(request_id), wanted, size)

    async def _answer_list(self, asked: _ListRequest, listed: ListSnapshot) -> None:
        """Send a list in as many frames as it takes, or an empty reply to a returning client."""
        head = (
            f'{{"errors":[],"action":"subscribe_list","response_status":{status.HTTP_201_CREATED}'
        )
        tail = f',"request_id":{asked.request_id}'
        if listed.resumed:
            await self.subscriptions.send(f'{head}{tail},"data":null}}')
            return
        # Half of it: with many rows a client has the first ones earlier, and a row may be longer.
        pages = listed.cut(asked.size, conf.get().MAX_FRAME_BYTES // 2)
        for number, page in enumerate(pages, start=1):
            if asked.wanted == "count" and page.results:
                body = f',"data":{page.results}'
            else:
                body = (
                    f',"data":{{"results":[{page.results}]}},'
                    f'"keys":[{page.keys}],"etags":[{page.etags}]'
                )
            more = ',"more":true' if number < len(pages) else ""
            await self.subscriptions.send(f"{head}{tail}{body}{more}}}")


@dataclass(frozen=True, slots=True)
class _ListRequest:
    """
    What a client asks for.

    Attributes:
        request_id: His name for the subscription, as JSON.
        wanted: Rows, keys or their number.
        size: Rows in one frame.
    """

    request_id: str
    wanted: Wanted
    size: int


def _check_have(have: Any, wanted: Wanted) -> None:
    """
    Refuse what can't be the rows that a client holds; no more of them than a list can have.

    Raises:
        ValidationError: It can't.
    """
    if wanted == "count":
        raise ValidationError(['"have" is of no use with "only": "count".'])
    # Values alone: the keys of a JSON object are strings.
    if not isinstance(have, dict) or not all(isinstance(etag, str) for etag in have.values()):
        raise ValidationError(['"have" must be an object of etags by key.'])
    limit = conf.get().MAX_LIST_ROWS
    if len(have) > limit:
        sentence = (
            f'"have" has {len(have)} rows; a list can have {limit}. Subscribe without "have".'
        )
        raise ValidationError([sentence])
