"""Servers in processes of their own, clients that talk to them, and their output in the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance import server as processes
from tests.acceptance.client import Client, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def installed() -> Iterator[processes.Database]:
    """A database with the project's tables and triggers, made by the management commands."""
    with processes.database() as database:
        database.prepare()
        yield database


@pytest.fixture(scope="session", params=["daphne"])
def server(
    request: pytest.FixtureRequest,
    installed: processes.Database,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[processes.Server]:
    """
    A server that serves the tests' project.

    ``@pytest.mark.parametrize("server", ["daphne", "uvicorn"], indirect=True)`` runs a test
    against others as well.
    """
    directory = tmp_path_factory.mktemp("server")
    with processes.serve(request.param, installed, directory) as running:
        yield running


@pytest.fixture
async def client(server: processes.Server) -> AsyncIterator[Client]:
    """A socket of the tutorial's consumer."""
    async with connected(server.url) as socket:
        yield socket


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show what the processes said when a test that used them failed."""
    report: Any = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            process = getattr(value, "process", value)
            if isinstance(process, processes.Process):
                report.sections.append((f"Output of {process.name}", process.output()))
    return report


@pytest.fixture
def log_directory(tmp_path: Path) -> Path:
    """A directory for the logs of one test's processes."""
    return tmp_path
