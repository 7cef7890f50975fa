"""During ``migrate``: whether a database needs an outbox, and the triggers if ``INSTALL_ON_MIGRATE`` is set."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from django.apps import apps
from django.core.management.base import CommandError
from django.db import connections, router

from pgobserve import conf
from pgobserve.errors import PgObserveError
from pgobserve.install import targets
from pgobserve.triggers import installer, registry
from pgobserve.triggers.installer import InstallAction
from pgobserve.triggers.server import catalog, outbox_storage


def install_app(app_label: str, *, using: str, verbosity: int) -> None:
    """
    Install the triggers of an app's observed models; ``CommandError`` if they can't be installed.

    Django sends ``post_migrate`` app by app when all tables exist. Only an unmanaged model may lack
    one, in a test database for instance; it is skipped.
    """
    connection = connections[using]
    if connection.vendor != "postgresql":
        return
    try:
        wanted = [
            each
            for each in targets.registrations(using=using)
            if each.model._meta.app_label == app_label
        ]
        tables = catalog.relations(connection, {each.table for each in wanted})
        for registration in wanted:
            if registration.table in tables:
                outcome = installer.install(registration, using=using)
                if registration.transport == "outbox":
                    outbox_storage.set_limit(
                        connection, registration.namespace, conf.get().OUTBOX_MAX_BYTES
                    )
                if outcome.action is not InstallAction.UNCHANGED:
                    _report(verbosity, f"{outcome.title}: {outcome.action} on {outcome.table}")
            else:
                _report(verbosity, f"{registration.title}: no table {registration.table}, skipped")
    except PgObserveError as error:
        raise CommandError(str(error)) from error


def _report(verbosity: int, text: str) -> None:
    if verbosity >= 1:
        sys.stdout.write(f"  pgobserve: {text}\n")


def needs_outbox(using: str) -> bool:
    """Return whether the changes of any model may go to a database's outbox."""
    settings = conf.get()
    models = (
        list(apps.get_models()) if settings.TRANSPORT == "outbox" else _in_outbox(settings.MODELS)
    )
    return any(router.allow_migrate_model(using, model) for model in models)


def _in_outbox(options: object) -> list[type]:
    if not isinstance(options, Mapping):
        return []
    return [
        registry.find(label)
        for label, each in options.items()
        if isinstance(each, Mapping) and each.get("transport") == "outbox"
    ]
