"""One check at a time, on the test database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection

from pgobserve.cli.doctor.case import Examination
from pgobserve.cli.doctor.examination import CHECKS
from tests.integration.conftest import bouncer  # noqa: F401 (a fixture)
from tests.integration.triggers.conftest import (  # noqa: F401 (fixtures)
    bare_command,
    clean,
    command,
    install,
    make,
    run,
    transport,
    writer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgobserve.cli.doctor.case import Finding

    Command = Callable[..., tuple[int, str, str]]
    Look = Callable[[str], Finding]


@pytest.fixture
def look(command: Command, settings: Any) -> Look:  # noqa: F811
    """Make one check; items are what is observed, unless a test says otherwise."""
    settings.PGOBSERVE = {"MODELS": ["project.Item"]}

    def look(name: str) -> Finding:
        return CHECKS[name](Examination(connection))

    return look
