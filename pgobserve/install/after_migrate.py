"""What follows ``migrate`` where ``INSTALL_ON_MIGRATE`` is set: the triggers of one app's models."""

from __future__ import annotations

import sys

from django.core.management.base import CommandError
from django.db import connections

from pgobserve import conf
from pgobserve.errors import PgObserveError
from pgobserve.install import targets
from pgobserve.triggers import installer, outbox_storage
from pgobserve.triggers.installer import InstallAction
from pgobserve.triggers.server import catalog


def install_app(app_label: str, *, using: str, verbosity: int) -> None:
    """
    Install the triggers of those observed models that belong to an app.

    Django sends ``post_migrate`` for one app after the other, when all tables are there. Only a
    model that it does not manage may have none, in a test database for instance.

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
                done = installer.install(registration, using=using)
                if registration.transport == "outbox":
                    outbox_storage.limit(
                        connection, registration.namespace, conf.get().OUTBOX_MAX_BYTES
                    )
                if done.action is not InstallAction.UNCHANGED:
                    _tell(verbosity, f"{done.title}: {done.action} on {done.table}")
            else:
                _tell(verbosity, f"{registration.title}: no table {registration.table}, left out")
    except PgObserveError as error:
        raise CommandError(str(error)) from error


def _tell(verbosity: int, text: str) -> None:
    if verbosity >= 1:
        sys.stdout.write(f"  pgobserve: {text}\n")
