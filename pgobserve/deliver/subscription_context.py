"""What the surface knows of a subscription, and what it is called by."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from rest_framework.exceptions import APIException, ValidationError

from pgobserve._json import is_deeper
from pgobserve.cohorts.row_permissions import Guard
from pgobserve.exceptions import ArgumentsTooLong, QueryTooLong
from pgobserve.logs import fields

#: Characters that a client's query may have as JSON, and all arguments of a subscription together.
MAX_QUERY: Final = 8192
MAX_ARGUMENTS: Final = 16_384

#: Levels of lists and objects that they may have.
MAX_LEVELS: Final = 20

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgobserve.cohorts.cohort import Cohort
    from pgobserve.cohorts.visibility import Visibility
    from pgobserve.hub.hub import TableDependencies
    from pgobserve.hub.send_queue import Refusal
    from pgobserve.sql.relation_path import RelationPath


@dataclass(slots=True, eq=False)
class SubscriptionContext:
    """
    What the surface knows of a watch; its ``context``.

    Attributes:
        visibility: What the subscriber may see.
        request_id_text: His request id, as JSON.
        wants_etag: Each frame that shows the row has an etag.
        lookup: By which value he named the row.
        alias: The database alias whose feed serves it.
        by_itself: The consumer reads and shows the row by itself.
        hidden: Such a consumer has told that the row is gone, or out of sight.
        held: Etag of the state that the client of such a consumer came back with.
        named_by: The field that names rows to clients; None for the primary key.
        asked: The action by which it was asked for.
        lists: It is a subscription to a list.
        paths: The ways to other tables that the consumer wants watched, besides what its rows show.
        guard: The subscription's own permissions; made here, so that it can't be another's.
        size: Characters of the arguments that are kept, as JSON.
    """

    visibility: Visibility
    request_id_text: str
    wants_etag: bool
    lookup: str
    alias: str
    by_itself: bool = False
    hidden: bool = False
    held: str | None = None
    named_by: str | None = None
    asked: str = "subscribe_instance"
    lists: bool = False
    paths: tuple[RelationPath, ...] = ()
    guard: Guard = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = size_of(self.visibility.kwargs)
        self.guard = Guard(self.visibility.consumer, by_itself=self.by_itself)
        self.visibility.on_rebuild = self.guard.examine

    def about(self, key: object = None) -> dict[str, object]:
        """Return the fields of a log line about a row of the subscription."""
        return fields(
            consumer=type(self.visibility.consumer),
            model=self.visibility.source.statement.model,
            key=key,
            alias=self.alias,
        )

    def subject(self, source: Cohort) -> TableDependencies:
        """Return which changes concern its rows, when they come from a source."""
        if not self.paths:
            return source.subject
        paths = dict.fromkeys((*source.subject.paths, *self.paths))
        return replace(source.subject, paths=tuple(paths))


def encode_name(value: Any) -> str:
    """Return JSON that is the same for the same value; a client may name things by any value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def check_arguments(kwargs: Mapping[str, Any]) -> int:
    """
    Refuse arguments that are too long, or nested too deeply.

    What a query makes is read together with others' rows at each change, and delays them: a search for
    twenty thousand words by seconds. No URL may be as long, either. And all of the arguments are kept as
    long as the subscription lives.

    Returns:
        Their characters as JSON.

    Raises:
        QueryTooLong: The query is.
        ArgumentsTooLong: All together are.
        ValidationError: They are nested too deeply.
    """
    if is_deeper(kwargs, MAX_LEVELS):
        raise ValidationError([f"Arguments may have {MAX_LEVELS} levels of lists and objects."])
    if len(encode_name(kwargs.get("query"))) > MAX_QUERY:
        raise QueryTooLong(MAX_QUERY)
    size = size_of(kwargs)
    if size > MAX_ARGUMENTS:
        raise ArgumentsTooLong(MAX_ARGUMENTS)
    return size


def size_of(kwargs: Mapping[str, Any]) -> int:
    """Return the characters of arguments as JSON; what code of the project adds hardly counts."""
    return len(json.dumps(kwargs, default=lambda value: type(value).__name__))


def refused(outcome: Refusal) -> Exception:
    """Return the exception that answers a refused request."""
    error = APIException(detail=list(outcome.errors))
    error.status_code = outcome.status
    return error
