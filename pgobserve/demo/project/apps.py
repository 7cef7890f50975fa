from __future__ import annotations

from django.apps import AppConfig


class HarbourConfig(AppConfig):
    """The demo's one app."""

    name = "pgobserve.demo.project"
    label = "harbour"
