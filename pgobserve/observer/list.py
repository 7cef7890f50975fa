"""The mixin for subscriptions to lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from rest_framework import status
from rest_framework.exceptions import ValidationError

from pgobserve import conf
from pgobserve.decorators import action
from pgobserve.observer.consumer import ObserverConsumerMixin, declared_model
from pgobserve.subscribe.subscription_set import encode_name

if TYPE_CHECKING:
    from django.db.models import Model

    from pgobserve.cohorts.cohort import Wanted
    from pgobserve.hub.subscriptions import ListSnapshot

#: What a client may request in place of the rows.
ONLY: Final = ("keys", "count")


class ObserverModelListMixin(ObserverConsumerMixin):
    """
    Lets clients subscribe to lists: the actions ``subscribe_list`` and ``unsubscribe_list``.

    A list is the queryset that ``get_queryset`` and ``filter_queryset`` return for the client. Filter
    backends receive ``"query"``. A subscriber receives the list as of one snapshot. From then on it receives
    ``create``, ``update`` and ``delete`` as rows enter, change and leave.

    Attributes:
        max_rows: Maximum number of rows in one frame. A longer list comes in several frames, all but
            the last of which have ``"more": true``. Long rows make a frame shorter. A client may request
            fewer with ``"max_rows"``.

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
            request_id: The client's name for the subscription; required. A subscription with the same
                name is replaced.
            only: ``"keys"`` for the rows' keys alone, ``"count"`` for their number.
            max_rows: Maximum number of rows in one frame.
            have: The rows that a returning client holds: an object of etags by key. The reply has no
                rows, and the difference follows as ``create``, ``update`` and ``delete``.
            **kwargs: Arguments of ``get_queryset`` and ``filter_queryset``, including ``"query"``.
        """
        request = self._request(request_id, only, max_rows, have)
        hooks = {**kwargs, "request_id": request_id, "action": "subscribe_list"}
        listed = await self.subscriptions.lists.start(
            declared_model(type(self)), hooks, wanted=request.wanted, have=have
        )
        await self.subscriptions.writer.settle()  # of a list that this one replaces
        try:
            await self._answer_list(request, listed)
        except Exception:
            # The client receives an error, and must not have a subscription with it.
            self.subscriptions.lists.end(request_id)
            raise

    @action()
    async def unsubscribe_list(self, request_id: Any = None, **kwargs: Any) -> tuple[None, int]:
        """End the subscription to a list with a request id."""
        if request_id is None:
            raise ValidationError(['"request_id" is required.'])
        self.subscriptions.lists.end(request_id)
        await self.subscriptions.writer.settle()
        return None, status.HTTP_204_NO_CONTENT

    def _request(self, request_id: Any, only: Any, max_rows: Any, have: Any) -> _ListRequest:
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

    async def _answer_list(self, request: _ListRequest, listed: ListSnapshot) -> None:
        """Send a list in as many frames as it takes, or an empty reply to a returning client."""
        head = (
            f'{{"errors":[],"action":"subscribe_list","response_status":{status.HTTP_201_CREATED}'
        )
        tail = f',"request_id":{request.request_id}'
        if listed.resumed:
            await self.subscriptions.writer.send(f'{head}{tail},"data":null}}')
            return
        # Half of the limit: a client then has the first rows earlier, and a single row may be longer.
        pages = listed.cut(request.size, conf.get().MAX_FRAME_BYTES // 2)
        for number, page in enumerate(pages, start=1):
            if request.wanted == "count" and page.results:
                body = f',"data":{page.results}'
            else:
                body = (
                    f',"data":{{"results":[{page.results}]}},'
                    f'"keys":[{page.keys}],"etags":[{page.etags}]'
                )
            more = ',"more":true' if number < len(pages) else ""
            await self.subscriptions.writer.send(f"{head}{tail}{body}{more}}}")


@dataclass(frozen=True, slots=True)
class _ListRequest:
    """
    A client's request for a list.

    Attributes:
        request_id: The client's name for the subscription, as JSON.
        wanted: Rows, their keys or their number.
        size: Maximum number of rows in one frame.
    """

    request_id: str
    wanted: Wanted
    size: int


def _check_have(have: Any, wanted: Wanted) -> None:
    """
    Refuse what can't be the rows that a client holds.

    Raises:
        ValidationError: It has the wrong form, or more rows than a list may have.
    """
    if wanted == "count":
        raise ValidationError(['"have" is of no use with "only": "count".'])
    # Only values are checked: the keys of a JSON object are strings. A set of types is fast.
    if not isinstance(have, dict) or not {*map(type, have.values())} <= {str}:
        raise ValidationError(['"have" must be an object of etags by key.'])
    limit = conf.get().MAX_LIST_ROWS
    if len(have) > limit:
        sentence = (
            f'"have" has {len(have)} rows; a list can have {limit}. Subscribe without "have".'
        )
        raise ValidationError([sentence])
