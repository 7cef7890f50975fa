"""
The action ``settled`` of one socket: requests that come meanwhile are answered together.

A round waits until everything that was committed before it began has been sent to the socket.
Requests that come during a round share the next one, so a socket has one round at a time.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from pgobserve.exceptions import FeedDown, FeedUnavailable, NotSettled, TooManySettled
from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import Coroutine

logger = logging.getLogger(__name__)

#: The name of the action.
ACTION: Final = "settled"

#: The attribute of a mixin, or of what a method became, whose consumers have the action.
MARKER: Final = "_answers_settled"

#: Seconds that a round may take.
TIMEOUT: Final = 30.0

#: Requests that may wait for the next round.
MOST_WAITING: Final = 256


class Settling(Protocol):
    """A consumer, as far as its requests need one."""

    async def _settle(self) -> None:
        """Return when everything that was committed before has been sent."""

    def start_detached(self, name: str, work: Coroutine[Any, Any, Any]) -> object:
        """Start a task that ends with the socket."""

    async def reply(self, action: str | None, *, status: int = ..., request_id: Any = ...) -> None:
        """Send a frame."""

    async def handle_exception(self, exc: Exception, action: str | None, request_id: Any) -> None:
        """Reply with an error."""


class SettledRequests:
    """
    The requests of one socket that are not answered yet.

    Args:
        timeout: Seconds that a round may take.
    """

    __slots__ = ("_consumer", "_serving", "_timeout", "_waiting")

    def __init__(self, consumer: Settling, timeout: float = TIMEOUT) -> None:
        self._consumer = consumer
        self._timeout = timeout
        self._waiting: list[Any] = []
        self._serving = False

    def add(self, request_id: Any) -> None:
        """
        Take a request.

        Raises:
            TooManySettled: Too many wait already.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise TooManySettled(MOST_WAITING)
        self._waiting.append(request_id)
        if not self._serving:
            self._serving = True
            # It ends with the socket.
            self._consumer.start_detached("pgobserve.settled", self._serve())

    async def _serve(self) -> None:
        try:
            while self._waiting:
                served, self._waiting = self._waiting, []
                error = await self._round()
                for request_id in served:
                    await self._answer(request_id, error)
        finally:
            self._serving = False

    async def _round(self) -> Exception | None:
        """Wait until everything was sent; return the error that answers the requests instead."""
        consumer = type(self._consumer)
        extra = fields(consumer=consumer)
        try:
            async with asyncio.timeout(self._timeout):
                await self._consumer._settle()
        except TimeoutError:
            logger.info(
                "%s answers %r with 503: not everything could be read and sent within %.0f s.",
                *(consumer.__qualname__, ACTION, self._timeout),
                extra=extra,
            )
            return NotSettled()
        except FeedUnavailable as error:
            logger.info(
                "%s answers %r with 503: %s.", consumer.__qualname__, ACTION, error, extra=extra
            )
            return FeedDown()
        except Exception as error:  # noqa: BLE001 (answered, and logged there)
            return error
        return None

    async def _answer(self, request_id: Any, error: Exception | None) -> None:
        consumer = self._consumer
        if error is None:
            await consumer.reply(action=ACTION, status=200, request_id=request_id)
        else:
            await consumer.handle_exception(error, action=ACTION, request_id=request_id)
