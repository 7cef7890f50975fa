"""What consumers derive from to let clients subscribe to lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from rest_framework import status
from rest_framework.exceptions import ValidationError

from pgobserve import conf
from pgobserve.decorators import action
from pgobserve.deliver.subscription_context import encode_name
from pgobserve.deliver.tokens import Back, parse_list_token
from pgobserve.observer.consumer import ObserverConsumerMixin, declared_model
from pgobserve.render.rendering import encode

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
        max_rows: Rows in one frame; a list of more comes in several, the last of which has the
            token. A frame has fewer if they are long. A client may ask for fewer by ``"max_rows"``.

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
        token: Any = None,
        keys: Any = None,
        **kwargs: Any,
    ) -> None:
        """
        Subscribe to a list.

        Args:
            request_id: The client's name for the subscription; required. One that it has already
                is replaced.
            only: ``"keys"`` for the rows' keys alone, ``"count"`` for their number.
            max_rows: Rows in one frame at most.
            token: From an earlier frame: only what changed since is sent, or a ``reset`` with the
                whole list, if that can't be told.
            keys: With a token: those of the rows that the client has.
            **kwargs: Reach ``get_queryset`` and ``filter_queryset``, ``"query"`` among them.
        """
        asked = self._asked(request_id, only, max_rows, token, keys)
        hooks = {**kwargs, "request_id": request_id, "action": "subscribe_list"}
        listed, new_token = await self.subscriptions.lists.begin(
            declared_model(type(self)), hooks, wanted=asked.wanted, back=asked.back
        )
        await self.subscriptions.settle()  # of a list that this one replaces, say
        try:
            await self._answer_list(asked, listed, new_token)
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

    def _asked(
        self, request_id: Any, only: Any, max_rows: Any, token: Any, keys: Any
    ) -> _ListRequest:
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
        return _ListRequest(encode_name(request_id), wanted, size, self._back(token, keys))

    def _back(self, token: Any, keys: Any) -> Back | None:
        if token is None:
            if keys is not None:
                raise ValidationError(['"keys" are of no use without a "token".'])
            return None
        try:
            seen, fingerprint = parse_list_token(token)
        except ValueError:
            raise ValidationError(
                ['"token" is not a token of a list that a server gave.']
            ) from None
        return Back(seen, fingerprint, None if keys is None else _keys(keys))

    async def _answer_list(self, asked: _ListRequest, listed: ListSnapshot, token: str) -> None:
        if asked.back is not None and not listed.unchanged:
            await self._send_list(asked, None, asked.back.token)
            await self._send_list(asked, listed, token, action="reset", code=205)
        else:
            await self._send_list(asked, listed, token)

    async def _send_list(
        self,
        asked: _ListRequest,
        listed: ListSnapshot | None,
        token: str,
        *,
        action: str = "subscribe_list",
        code: int = status.HTTP_201_CREATED,
    ) -> None:
        """Send a list in as many frames as it takes, or an empty one."""
        # Half of it: with many rows a client has the first ones earlier, and a row may be longer.
        length = conf.get().MAX_FRAME_BYTES // 2
        pages = [""] if listed is None or listed.unchanged else listed.cut(asked.size, length)
        for number, rows in enumerate(pages, start=1):
            counted = asked.wanted == "count" and rows
            data = rows if counted else f'{{"results":[{rows}]}}'
            tail = f',"token":{encode(token)}' if number == len(pages) else ""
            await self.subscriptions.send(
                f'{{"errors":[],"data":{data},"action":"{action}","response_status":{code},'
                f'"request_id":{asked.request_id}{tail}}}'
            )


@dataclass(frozen=True, slots=True)
class _ListRequest:
    """
    What a client asks for.

    Attributes:
        request_id: His name for the subscription, as JSON.
        wanted: Rows, keys or their number.
        size: Rows in one frame.
        back: What he has, if he comes back.
    """

    request_id: str
    wanted: Wanted
    size: int
    back: Back | None


def _keys(keys: Any) -> list[Any]:
    """Return what a client says are keys; no more of them than a list can have rows."""
    if not isinstance(keys, list):
        raise ValidationError(['"keys" must be a list of primary keys.'])
    limit = conf.get().MAX_LIST_ROWS
    if len(keys) > limit:
        sentence = (
            f'"keys" has {len(keys)} keys; a list can have {limit}. Leave out "keys", or subscribe '
            "without a token."
        )
        raise ValidationError([sentence])
    return keys
