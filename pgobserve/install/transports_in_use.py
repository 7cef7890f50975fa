"""Whether a database needs an outbox, from settings alone: ``migrate`` imports no consumer."""

from __future__ import annotations

from collections.abc import Mapping

from django.apps import apps
from django.db import router

from pgobserve import conf
from pgobserve.triggers import registry


def needs_outbox(using: str) -> bool:
    """Return whether the changes of any model may go to a database's outbox."""
    settings = conf.get()
    models = list(apps.get_models()) if settings.TRANSPORT == "outbox" else _named(settings.MODELS)
    return any(router.allow_migrate_model(using, model) for model in models)


def _named(options: object) -> list[type]:
    if not isinstance(options, Mapping):
        return []
    return [
        registry.find(label)
        for label, each in options.items()
        if isinstance(each, Mapping) and each.get("transport") == "outbox"
    ]
