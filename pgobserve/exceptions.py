"""The public exceptions of this package, and DCRF's."""

from __future__ import annotations

from rest_framework import status
from rest_framework.exceptions import APIException

from pgobserve._former_names import resolver
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
    "ArgumentsTooLong",
    "ClientDisconnected",
    "ConfigurationError",
    "EventsNotObserved",
    "FeedDown",
    "FeedUnavailable",
    "FrameTooLarge",
    "NotObserved",
    "NotSettled",
    "NotWatchable",
    "PayloadInvalid",
    "PgObserveError",
    "QueryTooLong",
    "TemplatesMissing",
    "TooManyArguments",
    "TooManySettled",
    "TooManySubscriptions",
    "TriggerError",
]


class ClientDisconnected(PgObserveError, OSError):
    """A frame could not be sent because the client is gone; ``disconnect`` follows."""


class ActionMissingException(APIException):
    """A frame without an ``action``; DCRF's name and status."""

    status_code = status.HTTP_405_METHOD_NOT_ALLOWED
    default_detail = "Unable to find action in message body."
    default_code = "method_not_allowed"


class _About(APIException):
    """An error whose ``default_detail`` names what it is about."""

    def __init__(self, subject: object) -> None:
        super().__init__(str(self.default_detail).format(subject))


class NotObserved(APIException):
    """A subscription to a table without triggers."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "not_observed"

    def __init__(self, label: str, sentence: str) -> None:
        super().__init__(sentence)
        self.label = label


class EventsNotObserved(NotObserved):
    """A subscription to events of a table that does not write to the outbox."""

    def __init__(self, label: str, database: str = "") -> None:
        super().__init__(
            label,
            f"Events of {label} are not written to the outbox yet: run manage.py pgobserve install "
            f"{label}{database}, and see that PGOBSERVE does not say another transport for it.",
        )


class FeedDown(APIException):
    """A subscription that can't start now, because the database can't be reached."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = "Changes can't be followed now; try again later."
    default_code = "feed_down"


class NotWatchable(APIException):
    """A subscription to a list whose queryset can't be watched."""

    status_code = status.HTTP_500_INTERNAL_SERVER_ERROR
    default_detail = (
        "This list can't be watched; the server's log says why, and what to use instead."
    )
    default_code = "not_watchable"


class NotSettled(APIException):
    """A ``settled`` whose changes could not all be read and sent in time."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = (
        "Not everything that was committed could be read and sent yet; try again later."
    )
    default_code = "not_settled"


class TooManySettled(_About):
    """More pending ``settled`` requests than a socket may have."""

    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_code = "too_many_settled"
    default_detail = '{} requests "settled" wait for their answer on this socket already.'


class TooManySubscriptions(_About):
    """More subscriptions than a socket may have."""

    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_code = "too_many_subscriptions"
    default_detail = (
        "A socket may have {} subscriptions: end some, or raise the setting "
        "PGOBSERVE['MAX_SUBSCRIPTIONS']."
    )


class QueryTooLong(_About):
    """A subscription with a ``query`` that is too long."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "query_too_long"
    default_detail = '"query" may have {} characters. Filter by less.'


class ArgumentsTooLong(_About):
    """A subscription with arguments that are too long."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "arguments_too_long"
    default_detail = "The arguments of a subscription may have {} characters as JSON."


class TooManyArguments(_About):
    """More arguments than a socket's subscriptions may have together."""

    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_code = "too_many_arguments"
    default_detail = (
        "The arguments of a socket's subscriptions may have {} characters as JSON: end some "
        "subscriptions, or raise the setting PGOBSERVE['MAX_ARGUMENT_BYTES']."
    )


class FrameTooLarge(APIException):
    """A frame that was not sent because it is too large for the server or the client."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = "The answer is longer than a frame may be. Request less of it: fewer rows, or a smaller page."
    default_code = "frame_too_large"


__getattr__ = resolver(__name__)
