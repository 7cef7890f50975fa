"""
Find caches of other packages between the ORM and an observed table.

They are invalidated by the ORM's own writes. So a change by SQL would be sent with the nested rows that
the cache holds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from django.apps import apps

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model


def cache_of(model: type[Model]) -> tuple[str, str] | None:
    """Return the package that caches a model's rows, and the remedy; None if none does."""
    for app, (package, caches, remedy) in _APPS.items():
        if apps.is_installed(app) and caches(model):
            return package, remedy.format(label=model._meta.label_lower, table=model._meta.db_table)
    for manager in (model._default_manager, model._base_manager):
        for each in type(manager.get_queryset()).__mro__:
            if package := _QUERYSETS.get(each.__module__.partition(".")[0], ""):
                return package, f"Make a manager without a cache the default of {model.__name__}."
    return None


def _by_cachalot(model: type[Model]) -> bool:
    enabled = import_module("cachalot.settings").cachalot_settings.CACHALOT_ENABLED
    return bool(enabled and import_module("cachalot.utils").is_cachable(model._meta.db_table))


def _by_cacheops(model: type[Model]) -> bool:
    conf = import_module("cacheops.conf")
    profile = conf.model_profile(model)
    return bool(conf.settings.CACHEOPS_ENABLED and profile and profile["ops"])


#: By app: the package, whether it caches a model, and the remedy.
_APPS: Final[dict[str, tuple[str, Callable[[type[Model]], bool], str]]] = {
    "cachalot": ("django-cachalot", _by_cachalot, 'Add "{table}" to CACHALOT_UNCACHABLE_TABLES.'),
    "cacheops": (
        "django-cacheops",
        _by_cacheops,
        'Set CACHEOPS["{label}"] = None: its rows are then read from the database.',
    ),
}

#: By the top-level module of a queryset's class, the package.
_QUERYSETS: Final = {
    "caching": "django-cache-machine",
    "django_cache_manager": "django-cache-manager",
}
