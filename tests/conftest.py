"""What all tests on the database share."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.logs import FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Incomplete(logging.Handler):
    """Keeps what the package logs without its fields, or without naming them in the text."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        known = [getattr(record, name, text) for name in FIELDS if hasattr(record, name)]
        named = all(str(value) in text for value in known if value is not None)
        if len(known) < len(FIELDS) or not named:
            self.lines.append(f"{record.pathname}:{record.lineno}: {text} {known}")


@pytest.fixture(autouse=True)
def log_lines_are_complete() -> Iterator[None]:
    """Whatever is logged in a test has its fields, and its text names them."""
    handler = _Incomplete()
    logger = logging.getLogger("pgobserve")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    assert handler.lines == []


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
