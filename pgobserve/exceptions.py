"""The errors that users of this package meet: ours, and the answers that DCRF's users know."""

from __future__ import annotations

from rest_framework import status
from rest_framework.exceptions import APIException

from pgobserve.errors import (
    ConfigurationError,
    FeedUnavailable,
    PayloadInvalid,
    PgObserveError,
    TemplatesMissing,
    TriggerError,
)

__all__ = [
    "ActionMissingException",
    "ClientDisconnected",
    "ConfigurationError",
    "FeedUnavailable",
    "PayloadInvalid",
    "PgObserveError",
    "TemplatesMissing",
    "TriggerError",
]


class ClientDisconnected(PgObserveError, OSError):
    """A frame could not be sent because the client is gone; its ``disconnect`` is on the way."""


class ActionMissingException(APIException):
    """A frame without an ``action``; DCRF's name and status."""

    status_code = status.HTTP_405_METHOD_NOT_ALLOWED
    default_detail = "Unable to find action in message body."
    default_code = "method_not_allowed"
