"""
The setting ``DJANGO_CHANNELS_REST_API``, with DCRF's name and keys.

It is read at each access, never at import: settings may change after consumers are defined, for example in
tests.
"""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings
from django.core.signals import setting_changed
from rest_framework.settings import perform_import

from pgobserve._former_names import resolver

NAME: Final = "DJANGO_CHANNELS_REST_API"

DEFAULTS: Final[dict[str, Any]] = {
    "DEFAULT_PERMISSION_CLASSES": ("pgobserve.permissions.AllowAny",),
    "DEFAULT_THROTTLE_CLASSES": (),
    "DEFAULT_FILTER_BACKENDS": (),
    "DEFAULT_PAGINATION_CLASS": None,
    "DEFAULT_PAGE_SIZE": 25,
    "PAGE_SIZE": None,
}

#: Keys whose values are dotted paths, or lists of them.
IMPORT_STRINGS: Final = frozenset(DEFAULTS) - {"DEFAULT_PAGE_SIZE", "PAGE_SIZE"}


class APISettings:
    """
    The values of the setting as attributes, with dotted paths imported.

    Example:
        >>> api_settings.PAGE_SIZE is None
        True
    """

    def __init__(self) -> None:
        self._cached: dict[str, Any] = {}

    @property
    def user_settings(self) -> dict[str, Any]:
        """The project's setting, unprocessed."""
        return getattr(settings, NAME, None) or {}

    def __getattr__(self, key: str) -> Any:
        if key not in DEFAULTS:
            raise AttributeError(
                f"{NAME} has no key {key!r}. It knows: {', '.join(sorted(DEFAULTS))}."
            )
        if key not in self._cached:
            value = self.user_settings.get(key, DEFAULTS[key])
            if key in IMPORT_STRINGS:
                value = perform_import(value, key)
            self._cached[key] = value
        return self._cached[key]

    def reload(self) -> None:
        """Discard cached values."""
        self._cached.clear()


api_settings = APISettings()


class _FromSetting:
    """A class attribute whose value is a setting, read at each access."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return getattr(api_settings, self.key)


def from_setting(key: str) -> Any:
    """Return a class attribute that reads a setting at each access; classes and instances may override it."""
    return _FromSetting(key)


def reload_api_settings(*, setting: str, **_: object) -> None:
    """Discard cached values when the setting changes."""
    if setting == NAME:
        api_settings.reload()


setting_changed.connect(reload_api_settings, dispatch_uid="pgobserve.settings")

__getattr__ = resolver(__name__)
