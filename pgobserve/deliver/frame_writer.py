"""From a socket's mailbox to its frames: at most one writer for each socket, never a queue."""

from __future__ import annotations

import asyncio
import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pgobserve import conf
from pgobserve._consumer.json_socket import is_being_cancelled, is_gone, is_too_large
from pgobserve.consumers import AsyncAPIConsumer
from pgobserve.deliver.feeds import feed_of
from pgobserve.deliver.subscription_context import fingerprint
from pgobserve.exceptions import FrameTooLarge
from pgobserve.hub.list_subscription import ListItemUpdate
from pgobserve.hub.load_requests import TOO_LARGE
from pgobserve.hub.send_queue import (
    NOTHING,
    UNTOLD,
    Refusal,
    SendQueue,
)
from pgobserve.render.own_hooks import has_own
from pgobserve.render.rendering import encode
from pgobserve.sql.keys import shown
from pgobserve.workers import eager
from pgobserve.workers.occupation import HookFailed, contained

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.hub.send_queue import (
        Deliverable,
        FrameAction,
        NextFrame,
        Outcome,
        View,
    )
    from pgobserve.hub.snapshot import Snapshot

logger = logging.getLogger(__name__)

#: Seconds that a send of a consumer's own may take to end with its socket.
SEND_TIMEOUT: Final = 5.0

#: Methods by which a frame is sent; without others, encoded ones may go straight to the socket.
_SENDING: Final = ("reply", "send_json", "send_frame", "encode_json", "send")

#: Seconds after which a socket goes on with frames that wait for others to be read again.
RESUME: Final = 1.0


class FrameWriter:
    """
    The writing end of one socket.

    Args:
        consumer: Sends the frames.

    Attributes:
        mailbox: What the socket still has to be told.
    """

    __slots__ = ("_base_send", "_consumer", "_limit", "_raw", "_resuming", "_task", "mailbox")

    def __init__(self, consumer: GenericAsyncAPIConsumer) -> None:
        self.mailbox = SendQueue(self._wake, self._write, self._read_again)
        self._resuming: asyncio.TimerHandle | None = None
        self._consumer = consumer
        self._task: asyncio.Task[None] | None = None
        self._raw = not has_own(consumer, *_SENDING, ours=AsyncAPIConsumer)
        # The server's own, without a guard around each frame: `_failed` looks at what a send raised.
        self._base_send = consumer.server_send or consumer.base_send
        self._limit = conf.get().MAX_FRAME_BYTES

    async def aclose(self) -> None:
        """Stop writing; returns when nothing is being written any more."""
        self.mailbox.close()
        if self._resuming is not None:
            self._resuming.cancel()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            # A consumer's own method may refuse to end. The socket must not wait for it.
            await asyncio.wait([task], timeout=SEND_TIMEOUT)

    async def settle(self) -> None:
        """
        Wait until the frame that is being sent, if one is, has been.

        A consumer that sends in a way of its own may take its time; a reply that ends what the frame
        is about must not overtake it.
        """
        task = self._task
        if task is not None and task is not asyncio.current_task():
            await asyncio.wait([task])

    def _read_again(self, told: Any) -> bool:
        """Have a row read again that waited too long; false for what is read when it is sent."""
        context = told.context
        if context.by_itself:
            return False
        feed_of(context.alias).read_again(told)
        if self._resuming is None:
            self._resuming = asyncio.get_running_loop().call_later(RESUME, self._resume)
        return True

    def _resume(self) -> None:
        self._resuming = None
        self.mailbox.resume()

    def _wake(self) -> None:
        self._write(self.mailbox.take())

    def _write(self, item: NextFrame | None) -> None:
        """Send until there is nothing left, or until a send has to wait; most do not."""
        while item is not None:
            watch, outcome, snapshot, kind = item
            bare = self._raw and not watch.context.by_itself
            try:
                if bare:
                    # What the consumer's own methods come down to, called five times less deep.
                    text = _text(watch, outcome, snapshot, kind)
                    if len(text) > self._limit:  # it is ASCII
                        raise FrameTooLarge  # noqa: TRY301 (a call for each frame costs more)
                    work = self._base_send({"type": "websocket.send", "text": text})  # type: ignore[arg-type]
                    task = eager.start(work, "pgobserve-outlet")
                else:
                    # The consumer's hooks run in the context of the subscription.
                    context = watch.context.visibility.origin.here()
                    task = eager.start(self._send(*item), "pgobserve-outlet", context)
            except BaseException as error:
                if bare and not _is_own(error):
                    raise
                item = self._failed(contained(error), item) or self.mailbox.take()
                continue
            if task is not None:
                self._task = task
                task.add_done_callback(partial(self._go_on, item))
                return
            item = self.mailbox.take()

    def _go_on(self, item: NextFrame, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if self._task is not task:  # the socket has gone
                return
            error: BaseException | None = HookFailed("It was cancelled by itself.")
        else:
            error = task.exception()
        instead = None if error is None else self._failed(error, item)
        self._write(instead or self.mailbox.take())

    def _failed(self, error: BaseException, item: NextFrame) -> NextFrame | None:
        """Return what is sent instead of a frame that could not be."""
        watch, outcome, snapshot, kind = item
        bare = self._raw and not watch.context.by_itself
        if is_gone(error) or (bare and self._consumer.has_departed(error)):
            self.mailbox.close()
            return None
        about = watch.context.about(watch.key)
        names = (about["consumer"], about["model"], about["key"], about["alias"])
        if is_too_large(error) and outcome is not TOO_LARGE and not watch.context.by_itself:
            logger.warning(
                "The server refused a frame of %s with %s %s of database %r as too large; the subscriber "
                "receives an error instead. Is PGOBSERVE['MAX_FRAME_BYTES'] more than the server can send?",
                *names,
                extra=about,
            )
            watch.unsent(kind)
            return watch, TOO_LARGE, snapshot, "error"
        # A frame that can't be sent must not end the feed of this socket.
        logger.error(
            "A frame of %s with %s %s of database %r could not be sent.",
            *names,
            exc_info=error,
            extra=about,
        )
        return None

    def _send(
        self, watch: Deliverable, outcome: Outcome, snapshot: Snapshot, kind: FrameAction
    ) -> Awaitable[None]:
        if watch.context.by_itself:
            return _contained(self._consumer.deliver(watch, kind))  # type: ignore[attr-defined]
        text = _text(watch, outcome, snapshot, kind)
        if len(text) > self._limit:
            raise FrameTooLarge
        return _contained(self._reply(watch, text))

    async def send(self, text: str) -> None:
        """
        Send a frame that is JSON already, of the consumer's own reply to a request.

        Raises:
            ClientDisconnected: The client has left.
            FrameTooLarge: It is longer than a frame may be.
        """
        if len(text) > self._limit:
            raise FrameTooLarge
        if self._raw:
            await self._consumer.base_send({"type": "websocket.send", "text": text})  # type: ignore[arg-type]
        else:
            await self._consumer.send_json(json.loads(text))

    async def _reply(self, watch: Deliverable, text: str) -> None:
        """Send by the consumer's own ``reply``, or its own encoder, because it overrides one."""
        frame = json.loads(text)
        frame["request_id"] = watch.request_id
        if watch.context.wants_token:
            await self._consumer.send_json(frame)
        else:
            frame["status"] = frame.pop("response_status")
            await self._consumer.reply(**frame)


class _SameText:
    """
    What many frames in a row have in common: those of all who are told the same.

    The one before is remembered, by identity.
    """

    __slots__ = ("_head", "_tail")

    def __init__(self) -> None:
        self._head: tuple[View | None, FrameAction | None, str] = (None, None, "")
        self._tail: tuple[Snapshot | None, Any, str] = (None, None, "")

    def head(self, view: View, kind: FrameAction) -> str:
        """Return the frame up to the request id."""
        known, its_kind, text = self._head
        if view is not known or kind != its_kind:
            text = _head("[]", view.body, kind, 200)
            self._head = (view, kind, text)
        return text

    def tail(self, seen: Snapshot | None, source: Any) -> str:
        """Return what a frame with a token ends with."""
        known, its_source, text = self._tail
        if seen is not known or source is not its_source:
            text = f',"token":"{seen}{fingerprint(source)}"}}'
            self._tail = (seen, source, text)
        return text


_same = _SameText()


def _text(watch: Deliverable, outcome: Outcome, snapshot: Snapshot, kind: FrameAction) -> str:
    """Put a frame together around the body, which is encoded once for all."""
    context = watch.context
    if isinstance(outcome, Refusal):
        # On a list it must be said which row.
        body = (
            encode({"pk": _named(watch, outcome)}) if isinstance(watch, ListItemUpdate) else "null"
        )
        head = _head(encode(list(outcome.errors)), body, "update", outcome.status)
    elif outcome.body is None:
        head = _head("[]", encode({"pk": shown(watch.key)}), kind, 204)
    else:
        head = _same.head(outcome, kind)
    if not context.wants_token:
        return f"{head}{context.request_id_text}}}"
    tail = _same.tail(watch.token(snapshot), watch.told_of)
    return f"{head}{context.request_id_text}{tail}"


def _named(member: ListItemUpdate, refusal: Refusal) -> Any:
    """Return the key as an error shows it; without a copy of a row a client may not learn it."""
    lacks = member.shown == NOTHING or member.shown == UNTOLD
    hides = lacks and not refusal.named
    return None if member.key is None or hides else shown(member.key)


def _head(errors: str, body: str | None, action: str, status: int) -> str:
    return (
        f'{{"errors":{errors},"data":{body},"action":"{action}","response_status":{status},'
        f'"request_id":'
    )


def _is_own(error: BaseException) -> bool:
    """Tell whether an error can only come from sending: nothing ends the process or the task."""
    return isinstance(error, Exception | asyncio.CancelledError)


async def _contained(work: Awaitable[None]) -> None:
    """Await a method of the consumer's own; what it raises ends neither the task nor the process."""
    try:
        await work
    except asyncio.CancelledError as error:
        if is_being_cancelled():
            raise
        raise contained(error) from error
    except (SystemExit, KeyboardInterrupt) as error:
        raise contained(error) from error
