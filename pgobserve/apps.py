"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class PgObserveConfig(AppConfig):
    """Gives the management command, the system checks and the static files."""

    name = "pgobserve"
    verbose_name = "PostgreSQL change feed"
    default_auto_field = "django.db.models.BigAutoField"
