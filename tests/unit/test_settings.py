"""The setting DJANGO_CHANNELS_REST_API."""

from __future__ import annotations

from typing import Any

import pytest

from pgobserve import permissions
from pgobserve.pagination import WebsocketLimitOffsetPagination
from pgobserve.settings import api_settings, from_setting


def test_defaults() -> None:
    """Without the setting, everyone may do everything and there are no pages."""
    assert list(api_settings.DEFAULT_PERMISSION_CLASSES) == [permissions.AllowAny]
    assert api_settings.DEFAULT_PAGINATION_CLASS is None
    assert api_settings.PAGE_SIZE is None
    assert api_settings.DEFAULT_PAGE_SIZE == 25
    assert list(api_settings.DEFAULT_THROTTLE_CLASSES) == []
    assert list(api_settings.DEFAULT_FILTER_BACKENDS) == []


def test_paths_are_imported(settings: Any) -> None:
    """Dotted paths become what they name."""
    settings.DJANGO_CHANNELS_REST_API = {
        "DEFAULT_PAGINATION_CLASS": "pgobserve.pagination.WebsocketLimitOffsetPagination",
        "DEFAULT_PERMISSION_CLASSES": ("rest_framework.permissions.IsAuthenticated",),
    }
    assert api_settings.DEFAULT_PAGINATION_CLASS is WebsocketLimitOffsetPagination
    assert api_settings.DEFAULT_PERMISSION_CLASSES[0].__name__ == "IsAuthenticated"


def test_change_is_seen(settings: Any) -> None:
    """A changed setting is read again, by class attributes too."""

    class Holder:
        size = from_setting("PAGE_SIZE")

    assert Holder.size is None
    settings.DJANGO_CHANNELS_REST_API = {"PAGE_SIZE": 7}
    assert (Holder.size, Holder().size) == (7, 7)
    assert WebsocketLimitOffsetPagination().default_limit == 7


def test_attribute_may_be_shadowed(settings: Any) -> None:
    """A subclass or an instance may have a value of its own."""

    class Holder:
        size = from_setting("PAGE_SIZE")

    class Own(Holder):
        size = 3

    holder = Holder()
    holder.size = 4
    assert (Own.size, holder.size) == (3, 4)


def test_unknown_key_is_named() -> None:
    """A key that does not exist is an AttributeError that names those that do."""
    with pytest.raises(AttributeError, match=r"no key 'PAGES'. It knows: DEFAULT_FILTER_BACKENDS"):
        _ = api_settings.PAGES
