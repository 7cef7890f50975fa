"""Two namespaces in the test database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection

from pgobserve.triggers import installer, registry
from pgobserve.wire import ALONE, Namespace
from tests.integration.triggers.conftest import (  # noqa: F401 (fixtures)
    bare_command,
    run,
    transport,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model

    from pgobserve.triggers.installer import InstallOutcome

OTHER = Namespace("other")


def drop() -> None:
    """Remove what both namespaces have in the database."""
    with connection.cursor() as cursor:
        for each in (ALONE, OTHER):
            cursor.execute(f"DROP SCHEMA IF EXISTS {each.schema} CASCADE")


@pytest.fixture
def clean(transactional_db: None) -> Iterator[None]:
    """Begin without either, and leave neither."""
    drop()
    yield
    drop()


@pytest.fixture
def command(
    clean: None,
    bare_command: Callable[..., tuple[int, str, str]],  # noqa: F811
) -> Callable[..., tuple[int, str, str]]:
    """Run ``manage.py pgobserve`` on the test database."""
    return bare_command


@pytest.fixture
def install(clean: None, transport: str) -> Callable[..., list[InstallOutcome]]:  # noqa: F811
    """Install the triggers of models in a namespace."""

    def install(namespace: Namespace, *models: type[Model], **options: Any) -> list[InstallOutcome]:
        wanted = {"transport": transport, **options}
        return [
            installer.install(each, using="default")
            for each in registry.build(models, namespace=namespace, **wanted)
        ]

    return install
