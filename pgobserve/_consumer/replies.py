"""The replies of a consumer: results of actions, and errors."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from channels.exceptions import StopConsumer
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.http import Http404
from rest_framework.exceptions import APIException, PermissionDenied

from pgobserve._consumer.client_presence import is_being_cancelled
from pgobserve.exceptions import ClientDisconnected
from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

INTERNAL_ERROR = "Internal server error."


class Replies:
    """The part of a consumer that replies to requests."""

    async def send_json(self, content: Any, close: bool = False) -> None:
        """Send a frame."""
        raise NotImplementedError

    async def _answering(
        self, work: Callable[[], Awaitable[Any]], action: Any, request_id: Any
    ) -> None:
        """Reply with the ``(data, status)`` that ``work`` returns, if any, or with its error."""
        try:
            response = await work()
            if isinstance(response, tuple):
                data, status = response
                await self.reply(action=action, data=data, status=status, request_id=request_id)
        except StopConsumer:
            raise
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                raise
            await self._internal_error(error, action, request_id)
        except Exception as error:  # noqa: BLE001 (replied to and logged there)
            await self.handle_exception(exc=error, action=action, request_id=request_id)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 (it may end only its request)
            await self._internal_error(error, action, request_id)

    async def reply(
        self,
        action: str | None,
        data: Any = None,
        errors: list[Any] | None = None,
        status: int = 200,
        request_id: Any = None,
    ) -> None:
        """Send a frame with DCRF's five keys."""
        await self.send_json(
            {
                "errors": [] if errors is None else errors,
                "data": data,
                "action": action,
                "response_status": status,
                "request_id": request_id,
            }
        )

    async def handle_exception(self, exc: Exception, action: str | None, request_id: Any) -> None:
        """
        Reply with an error.

        The reply to DRF's exceptions has their status and detail. Any other exception is logged, and the
        reply is a 500 without details.
        """
        if isinstance(exc, Http404):
            status, errors = 404, ["Not found"]
        elif isinstance(exc, DjangoPermissionDenied):
            denied = PermissionDenied()
            status, errors = denied.status_code, self._format_errors(denied.detail)
        elif isinstance(exc, APIException):
            status, errors = exc.status_code, self._format_errors(exc.detail)
        elif isinstance(exc, ClientDisconnected):
            raise exc
        else:
            await self._internal_error(exc, action, request_id)
            return
        await self.reply(action=action, errors=errors, status=status, request_id=request_id)

    async def _internal_error(self, error: BaseException, action: Any, request_id: Any) -> None:
        logger.error(
            "The action %r of %s failed.",
            *(action, type(self).__qualname__),
            exc_info=error,
            extra=fields(consumer=type(self)),
        )
        await self.reply(action=action, errors=[INTERNAL_ERROR], status=500, request_id=request_id)

    def _format_errors(self, errors: Any) -> list[Any]:
        return errors if isinstance(errors, list) else [errors]
