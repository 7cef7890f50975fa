"""What follows ``migrate`` where ``INSTALL_ON_MIGRATE`` is set: the triggers of one app's models."""

from __future__ import annotations

import sys

from django.db import connections

from pgobserve.cli import targets
from pgobserve.triggers import installer
from pgobserve.triggers.installer import Action


def install_app(app_label: str, *, using: str, verbosity: int) -> None:
    """
    Install the triggers of those observed models that belong to an app.

    Django sends ``post_migrate`` for one app after the other, when all tables are there.

    Raises:
        PgObserveError: The triggers can't be installed; ``migrate`` then fails, as asked for.
    """
    if connections[using].vendor != "postgresql":
        return
    for registration in targets.registrations(using=using):
        if registration.model._meta.app_label != app_label:
            continue
        done = installer.install(registration, using=using)
        if verbosity >= 1 and done.action is not Action.UNCHANGED:
            sys.stdout.write(f"  pgobserve: {done.title}: {done.action} on {done.table}\n")
