"""The JSON text of frames. All but the request id is encoded once for all subscriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve.cohorts.subscription_context import context_of
from pgobserve.hub.outcome import NOTHING, UNTOLD, Refusal
from pgobserve.hub.subscriptions import ListItemUpdate, encoded
from pgobserve.render.rendering import encode

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pgobserve.cohorts.subscription_context import SubscriptionContext
    from pgobserve.hub.outcome import FrameAction, Outcome, View
    from pgobserve.hub.subscriptions import Deliverable


def frame_text(
    watch: Deliverable, outcome: Outcome, kind: FrameAction, context: SubscriptionContext
) -> str:
    """Return the frame that shows an outcome to the client of a subscription."""
    if not isinstance(outcome, Refusal) and outcome.body is not None:
        key = watch.key if isinstance(watch, ListItemUpdate) else None
        # The number of rows has no key, and no etag.
        etag = key is not None if isinstance(watch, ListItemUpdate) else context.wants_etag
        after = _after_body(outcome, kind, key, etag=etag)
        return f'{{"errors":[],"data":{outcome.body}{after}{context.request_id_text}}}'
    if isinstance(watch, ListItemUpdate):
        head = _item_head(watch, outcome, kind)
    elif isinstance(outcome, Refusal):
        head = _head(encode(list(outcome.errors)), "null", "update", outcome.status)
    else:
        head = _head("[]", _identity(watch, context.named_by), kind, 204)
    return f"{head}{context.request_id_text}}}"


def _after_body(view: View, kind: FrameAction, key: Hashable, *, etag: bool) -> str:
    """Return what follows the body in a frame, up to the request id."""
    shape, known = (kind, key, etag), view.framing
    if known is not None and known[0] == shape:
        return known[1]
    named = "" if key is None else f',"key":{encoded(key)}'
    more = f'{named},"etag":"{view.etag}"' if etag else named
    text = _after(kind, 200, more)
    view.frame_with(shape, text)
    return text


def _item_head(member: ListItemUpdate, outcome: Outcome, kind: FrameAction) -> str:
    """Return the head of a frame that shows no row: a delete, or an error."""
    if isinstance(outcome, Refusal):
        # The frame names the row unless the client may not know of it.
        key = _named(member, outcome)
        errors, more = encode(list(outcome.errors)), f',"key":{encoded(key)}'
        return _head(errors, _data_of(key, member), "update", outcome.status, more)
    more = f',"key":{encoded(member.key)}'
    return _head("[]", _data_of(member.key, member), kind, 204, more)


def _data_of(key: Hashable, member: ListItemUpdate) -> str:
    """Return the data of a frame that shows only the key of a row."""
    context = context_of(member)
    # Names are texts as they are.
    value = key if context.named_by else context.shown(key)
    return encode({context.named_by or "pk": value})


def _identity(watch: Deliverable, named_by: str | None) -> str:
    """Return the data of a ``delete`` frame."""
    if named_by is None:
        return encode({"pk": context_of(watch).shown(watch.key)})
    return f"{{{encode(named_by)}:{context_of(watch).lookup}}}"


def _named(member: ListItemUpdate, refusal: Refusal) -> Hashable:
    """Return the key in an error frame; None if the client may not know of the row."""
    lacks = member.shown == NOTHING or member.shown == UNTOLD
    return None if lacks and not refusal.named else member.key


def _head(errors: str, body: str, action: str, status: int, more: str = "") -> str:
    return f'{{"errors":{errors},"data":{body}{_after(action, status, more)}'


def _after(action: str, status: int, more: str) -> str:
    return f',"action":"{action}","response_status":{status}{more},"request_id":'
