"""From a socket's queue to its frames. Each socket has at most one writer."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Coroutine
from contextvars import Context, copy_context
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from pgobserve import conf
from pgobserve._consumer.client_presence import is_being_cancelled, is_gone, is_too_large
from pgobserve.cohorts.subscription_context import context_of
from pgobserve.consumers import AsyncAPIConsumer
from pgobserve.deliver.frames import frame_text
from pgobserve.deliver.send_queue import SendQueue
from pgobserve.exceptions import FrameTooLarge
from pgobserve.hub.load_requests import TOO_LARGE
from pgobserve.render.own_hooks import has_own
from pgobserve.workers.occupation import HookFailed, contained

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from pgobserve.deliver.send_queue import NextFrame
    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.hub.outcome import FrameAction, Outcome
    from pgobserve.hub.subscriptions import Deliverable

logger = logging.getLogger(__name__)

#: Seconds that a consumer's own send may take to end after its socket has closed.
SEND_TIMEOUT: Final = 5.0

#: Methods that send a frame. If a consumer overrides none, encoded frames go straight to the socket.
_SENDING: Final = ("reply", "send_json", "send_frame", "encode_json", "send")

#: Python's own eager tasks, where they exist; chosen once, because `start` runs for each frame.
_EAGERLY: Final[dict[str, Any]] = {"eager_start": True} if sys.version_info >= (3, 12) else {}

#: Seconds after which frames no longer wait for rows that are being read again.
RESUME: Final = 1.0


class FrameWriter:
    """
    The writing end of one socket.

    Args:
        read_again: Called for a row that has waited too long. Makes its feed read it again.
    """

    __slots__ = (
        *("_again", "_base_send", "_consumer", "_limit", "_raw", "_resuming", "_task"),
        "send_queue",
    )

    def __init__(
        self, consumer: GenericAsyncAPIConsumer, read_again: Callable[[Deliverable], object]
    ) -> None:
        self.send_queue = SendQueue(self._wake, self._write, self._read_again)
        self._again = read_again
        self._resuming: asyncio.TimerHandle | None = None
        self._consumer = consumer
        self._task: asyncio.Task[None] | None = None
        self._raw = not has_own(consumer, *_SENDING, ours=AsyncAPIConsumer)
        # The server's own method, without a guard around each frame: `_failed` handles its errors.
        self._base_send = consumer.server_send or consumer.base_send
        self._limit = conf.get().MAX_FRAME_BYTES

    async def aclose(self) -> None:
        """Stop writing. Returns when no frame is being written."""
        self.send_queue.close()
        if self._resuming is not None:
            self._resuming.cancel()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            # A consumer's own method may not end. The socket must not wait for it forever.
            await asyncio.wait([task], timeout=SEND_TIMEOUT)

    async def settle(self) -> None:
        """
        Wait for the frame that is being sent, if any.

        A consumer's own send may be slow. A reply that ends the subscription must not overtake it.
        """
        task = self._task
        if task is not None and task is not asyncio.current_task():
            await asyncio.wait([task])

    def _read_again(self, item: Deliverable) -> bool:
        """Read a row again that has waited too long; return False for custom delivery."""
        if context_of(item).custom_delivery:
            return False
        self._again(item)
        if self._resuming is None:
            self._resuming = asyncio.get_running_loop().call_later(RESUME, self._resume)
        return True

    def _resume(self) -> None:
        self._resuming = None
        self.send_queue.resume()

    def _wake(self) -> None:
        self._write(self.send_queue.take())

    def _write(self, item: NextFrame | None) -> None:
        """Send until the queue is empty, or until a send must wait, which is rare."""
        while item is not None:
            watch, outcome, kind = item
            context = context_of(watch)
            bare = self._raw and not context.custom_delivery
            try:
                if bare:
                    # The effect of the consumer's methods, with five calls fewer.
                    text = frame_text(watch, outcome, kind, context)
                    if len(text) > self._limit:  # it is ASCII
                        raise FrameTooLarge  # noqa: TRY301 (a call for each frame costs more)
                    work = self._base_send({"type": "websocket.send", "text": text})  # type: ignore[arg-type]
                    task = start(work, "pgobserve-outlet")
                else:
                    # The consumer's hooks run in the context of the subscription.
                    here = context.visibility.origin.here()
                    task = start(self._send(*item), "pgobserve-outlet", here)
            except BaseException as error:
                # One from sending ends neither the process nor the task.
                if bare and not isinstance(error, Exception | asyncio.CancelledError):
                    raise
                item = self._failed(contained(error), item) or self.send_queue.take()
                continue
            if task is not None:
                self._task = task
                task.add_done_callback(partial(self._go_on, item))
                return
            item = self.send_queue.take()

    def _go_on(self, item: NextFrame, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if self._task is not task:  # the socket has gone
                return
            error: BaseException | None = HookFailed("It was cancelled by itself.")
        else:
            error = task.exception()
        instead = None if error is None else self._failed(error, item)
        self._write(instead or self.send_queue.take())

    def _failed(self, error: BaseException, item: NextFrame) -> NextFrame | None:
        """Return the frame that replaces one that could not be sent, if any."""
        watch, outcome, kind = item
        bare = self._raw and not context_of(watch).custom_delivery
        if is_gone(error) or (bare and self._consumer.has_departed(error)):
            self.send_queue.close()
            return None
        about = context_of(watch).about(watch.key)
        names = (about["consumer"], about["model"], about["key"], about["alias"])
        if (
            is_too_large(error)
            and outcome is not TOO_LARGE
            and not context_of(watch).custom_delivery
        ):
            logger.warning(
                "The server refused a frame of %s with %s %s of database %r as too large; the subscriber "
                "receives an error instead. Is PGOBSERVE['MAX_FRAME_BYTES'] more than the server can send?",
                *names,
                extra=about,
            )
            watch.unsent(kind)
            return watch, TOO_LARGE, "error"
        # One failed frame must not end the feed of this socket.
        logger.error(
            "A frame of %s with %s %s of database %r could not be sent.",
            *names,
            exc_info=error,
            extra=about,
        )
        return None

    def _send(self, watch: Deliverable, outcome: Outcome, kind: FrameAction) -> Awaitable[None]:
        if context_of(watch).custom_delivery:
            return _contained(self._consumer.deliver(watch, kind))  # type: ignore[attr-defined]
        text = frame_text(watch, outcome, kind, context_of(watch))
        if len(text) > self._limit:
            raise FrameTooLarge
        return _contained(self._reply(watch, text))

    async def send(self, text: str) -> None:
        """
        Send a reply that is already JSON.

        Raises:
            ClientDisconnected: The client has left.
            FrameTooLarge: The text is longer than a frame may be.
        """
        if len(text) > self._limit:
            raise FrameTooLarge
        if self._raw:
            await self._consumer.base_send({"type": "websocket.send", "text": text})  # type: ignore[arg-type]
        else:
            await self._consumer.send_json(json.loads(text))

    async def _reply(self, watch: Deliverable, text: str) -> None:
        """Send with the consumer's own ``reply`` or encoder."""
        frame = json.loads(text)
        frame["request_id"] = watch.request_id
        if context_of(watch).wants_etag:
            await self._consumer.send_json(frame)
        else:
            frame["status"] = frame.pop("response_status")
            await self._consumer.reply(**frame)


async def _contained(work: Awaitable[None]) -> None:
    """Await a consumer's own method, whose exceptions end neither the task nor the process."""
    try:
        await work
    except asyncio.CancelledError as error:
        if is_being_cancelled():
            raise
        raise contained(error) from error
    except (SystemExit, KeyboardInterrupt) as error:
        raise contained(error) from error


def start(
    work: Awaitable[None], name: str, context: Context | None = None
) -> asyncio.Task[None] | None:
    """
    Run a coroutine until it waits.

    Args:
        work: The coroutine, or another awaitable.
        name: The task's name, if a task is created.
        context: The coroutine's own context; by default a copy of the current context.

    Returns:
        The task that runs the rest; None if the coroutine has ended.

    Raises:
        Exception: The coroutine's error, if it raised before it waited.
    """
    if not isinstance(work, CoroutineType):
        work = _awaited(work)
    if _EAGERLY:
        loop = asyncio.get_running_loop()
        task = asyncio.Task(work, loop=loop, name=name, context=context, **_EAGERLY)
        if not task.done():
            return task
        task.result()
        return None
    # One context for both parts: the rest must find, and may reset, what the first part has set.
    context = copy_context() if context is None else context
    try:
        waits_for = context.run(work.send, None)
    except StopIteration:
        return None
    loop = asyncio.get_running_loop()
    return loop.create_task(_Rest(work, waits_for), name=name, context=context)


async def _awaited(work: Awaitable[None]) -> None:
    await work


class _Rest(Coroutine[Any, Any, None]):
    """The rest of a started coroutine; first it yields what the coroutine waits for already."""

    def __init__(self, work: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._work = work
        self._waits_for: list[Any] = [waits_for]

    def send(self, value: Any) -> Any:
        return self._waits_for.pop() if self._waits_for else self._work.send(value)

    def throw(self, *error: Any) -> Any:
        # Cancelled before its first step, the task does not know the awaited future yet.
        if self._waits_for and (future := self._waits_for.pop()) is not None:
            future.cancel()
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._work.__await__()
