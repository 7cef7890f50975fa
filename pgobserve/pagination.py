"""Pages of a list by the message's ``limit`` and ``offset``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.pagination import LimitOffsetPagination

from pgobserve._former_names import resolver
from pgobserve.settings import from_setting

if TYPE_CHECKING:
    from django.db.models import QuerySet


class WebsocketLimitOffsetPagination(LimitOffsetPagination):
    """
    DRF's limit and offset, from the keys of a message.

    Attributes:
        default_limit: Rows of a page if the message has no valid ``limit``; None for no pages.
        max_limit: The most rows of a page.
    """

    default_limit: int | None = from_setting("PAGE_SIZE")
    count: int
    limit: int
    offset: int

    def paginate_queryset(  # type: ignore[override]
        self, queryset: QuerySet[Any], scope: Any, view: Any = None, **kwargs: Any
    ) -> list[Any] | None:
        """Return the rows of the page that the message names; None without pagination."""
        limit = self.get_limit(**kwargs)
        if limit is None:
            return None
        self.scope = scope
        self.limit = limit
        self.offset = self.get_offset(**kwargs)
        self.count = self.get_count(queryset)
        if self.offset >= self.count:
            return []
        # Bounded by the count, because PostgreSQL accepts no LIMIT beyond 63 bits.
        return list(queryset[self.offset : min(self.offset + limit, self.count)])

    def get_paginated_response(self, data: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the page, with the numbers that the request for the next page needs."""
        return {"count": self.count, "results": data, "limit": self.limit, "offset": self.offset}

    def get_limit(self, **kwargs: Any) -> int | None:  # type: ignore[override]
        """Return the message's ``limit``, within ``max_limit``, or the default."""
        limit = _whole_number(kwargs.get("limit"))
        if not limit:
            return self.default_limit
        return limit if self.max_limit is None else min(limit, self.max_limit)

    def get_offset(self, **kwargs: Any) -> int:  # type: ignore[override]
        """Return the message's ``offset``, or 0."""
        return _whole_number(kwargs.get("offset")) or 0


def _whole_number(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = int(value)
    except (ValueError, OverflowError):
        return None
    return number if number >= 0 else None


__getattr__ = resolver(__name__)
