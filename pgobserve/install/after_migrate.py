"""Install triggers after ``migrate``, where ``INSTALL_ON_MIGRATE`` is set."""

from __future__ import annotations

import sys

from django.core.management.base import CommandError
from django.db import connections

from pgobserve import conf
from pgobserve.errors import PgObserveError
from pgobserve.install import targets
from pgobserve.triggers import installer
from pgobserve.triggers.installer import InstallAction
from pgobserve.triggers.server import catalog, outbox_storage


def install_app(app_label: str, *, using: str, verbosity: int) -> None:
    """
    Install the triggers of an app's observed models.

    Django sends ``post_migrate`` app by app when all tables exist. Only an unmanaged model may lack
    one, in a test database for instance; it is skipped.

    Raises:
        CommandError: The triggers can't be installed.
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
