"""Pages, cut from lists."""

from __future__ import annotations

from typing import Any

import pytest

from pgobserve.pagination import WebsocketLimitOffsetPagination


class Pages(WebsocketLimitOffsetPagination):
    default_limit = 3
    max_limit = 5


ROWS: Any = list(range(10))


def page(**kwargs: Any) -> dict[str, Any]:
    paginator = Pages()
    rows = paginator.paginate_queryset(ROWS, {}, view=None, **kwargs)
    return paginator.get_paginated_response(rows)


def test_page_tells_where_it_is() -> None:
    """A page has the number of all rows, and its limit and offset."""
    assert page(limit=2, offset=4) == {"count": 10, "results": [4, 5], "limit": 2, "offset": 4}


@pytest.mark.parametrize("limit", [None, 0, -1, "abc", "", [], {}, True, "1.5", float("inf")])
def test_unusable_limit_is_the_default(limit: object) -> None:
    """A limit that is none is the default."""
    assert page(limit=limit)["limit"] == 3


@pytest.mark.parametrize(("limit", "used"), [(5, 5), (6, 5), ("4", 4), (10**30, 5)])
def test_limit_is_bounded(limit: object, used: int) -> None:
    """A limit above the most allowed is the most allowed."""
    assert page(limit=limit)["limit"] == used


@pytest.mark.parametrize("offset", [None, -1, "abc", [], {}, True, float("nan")])
def test_unusable_offset_is_none(offset: object) -> None:
    """An offset that is none is 0."""
    assert page(offset=offset)["results"] == [0, 1, 2]


@pytest.mark.parametrize("offset", [10, 11, 10**30])
def test_offset_beyond_the_end_is_empty(offset: int) -> None:
    """A page behind the last row is empty."""
    assert page(offset=offset)["results"] == []


def test_no_limit_no_pages() -> None:
    """Without a default limit, a message without one gets no page."""
    assert WebsocketLimitOffsetPagination().paginate_queryset(ROWS, {}) is None
    assert WebsocketLimitOffsetPagination().paginate_queryset(ROWS, {}, limit=2) == [0, 1]


def test_huge_limit_without_a_bound_stays_within_the_rows() -> None:
    """Without a greatest limit, what is asked of the server stays within the rows there are."""
    asked: list[slice] = []

    class Rows(list[int]):
        def __getitem__(self, key: Any) -> Any:
            asked.append(key)
            return super().__getitem__(key)

    rows: Any = Rows(ROWS)
    assert WebsocketLimitOffsetPagination().paginate_queryset(rows, {}, limit=10**30) == ROWS
    assert asked == [slice(0, 10)]
