"""The Django app."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class PgObserveConfig(AppConfig):
    """Provides the management command, the system checks and the static files."""

    name = "pgobserve"
    verbose_name = "PostgreSQL change feed"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, and the installation after ``migrate``."""
        import_module("pgobserve.checks")
        post_migrate.connect(install_after_migrate, dispatch_uid="pgobserve.install_after_migrate")


def install_after_migrate(
    app_config: AppConfig, using: str, verbosity: int = 1, **kwargs: Any
) -> None:
    """Install the triggers of an app's models, if ``INSTALL_ON_MIGRATE`` is set."""
    # Imported late, because apps are not ready while this module loads.
    from pgobserve import conf

    if conf.get().INSTALL_ON_MIGRATE:
        from pgobserve.install import migrating

        migrating.install_app(app_config.label, using=using, verbosity=verbosity)
