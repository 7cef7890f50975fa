"""The Django project that the benchmarks serve; the environment says on which database."""

from __future__ import annotations

import json
import os

from pgobserve.demo.environment import django_database

SECRET_KEY = "benchmarks"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": django_database(json.loads(os.environ["BENCHMARK_DATABASE"]))}
INSTALLED_APPS = [
    "daphne",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "rest_framework",
    "channels",
    "pgobserve",
    "benchmarks.reading",
]
ASGI_APPLICATION = "benchmarks.reading.asgi.application"
ROOT_URLCONF = "benchmarks.reading.settings"
urlpatterns: list[object] = []
if "BENCHMARK_LAYER" in os.environ:
    # For djangochannelsrestframework: its fastest layer, and no new connection for each query.
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    DATABASES["default"]["CONN_MAX_AGE"] = None
if "BENCHMARK_KEEP" in os.environ:
    # What a request waits for is measured, not how long a new connection takes.
    DATABASES["default"]["CONN_MAX_AGE"] = None
if "BENCHMARK_TRANSPORT" in os.environ:
    PGOBSERVE = {"TRANSPORT": os.environ["BENCHMARK_TRANSPORT"]}
