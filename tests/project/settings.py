"""The Django project that the tests run."""

from __future__ import annotations

import json
import os

from pgobserve.demo.environment import django_database, named_server

SECRET_KEY = "tests"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# The test run sets PGOBSERVE_TEST_SERVER before Django is set up: see tests/plugin.py.
_server = json.loads(os.environ.get("PGOBSERVE_TEST_SERVER", "null")) or named_server() or {}
DATABASES = {"default": django_database(_server)}
if "PGOBSERVE_TEST_DATABASE" in os.environ:  # a server process started by an acceptance test
    DATABASES["default"]["NAME"] = os.environ["PGOBSERVE_TEST_DATABASE"]

INSTALLED_APPS = [
    "daphne",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "channels",
    "pgobserve",
    "tests.project",
    "tests.bookshelf",
    "tests.integration.oracle",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "tests.project.urls"
ASGI_APPLICATION = "tests.project.asgi.application"
STATIC_URL = "/static/"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
