"""What all tests on the database share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Make the test database, and empty it after each test in the short way."""
    # Imported late: unit tests that need no Django begin without it.
    from django.db import connections
    from django.test import TransactionTestCase

    from tests.flush import Flush

    flush = Flush()
    with django_db_blocker.unblock():
        for alias in connections:
            flush.prepare(alias)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda case: flush(case))
        yield
