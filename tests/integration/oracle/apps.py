from __future__ import annotations

from django.apps import AppConfig


class OracleConfig(AppConfig):
    name = "tests.integration.oracle"
    label = "oracle"
