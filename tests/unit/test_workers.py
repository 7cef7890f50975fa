"""How many workers a test run has."""

from __future__ import annotations

import pytest

from tests import plugin


@pytest.fixture(autouse=True)
def own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing names a server."""
    monkeypatch.setattr(plugin, "_is_given", lambda: False)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-m", "slow"],
        ["tests"],
        ["tests/integration", "-q"],
        ["tests/unit", "tests/integration"],
    ],
    ids=" ".join,
)
def test_large(arguments: list[str]) -> None:
    """A run of whole folders of integration tests is spread."""
    assert plugin.workers(arguments) > 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["tests/unit"],
        ["tests/unit/hub"],
        ["tests/integration/load/test_loader.py"],
        ["tests/integration/load", "tests/integration/load/test_loader.py::test_flood"],
        ["tests/integration", "-k", "flood"],
        ["--lf"],
        ["--pdb"],
    ],
    ids=" ".join,
)
def test_small(arguments: list[str]) -> None:
    """What is soon over runs in one process."""
    assert plugin.workers(arguments) == 0


def test_named_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that the environment names is not shared by workers."""
    monkeypatch.setattr(plugin, "_is_given", lambda: True)
    assert plugin.workers([]) == 0


def test_auto(request: pytest.FixtureRequest) -> None:
    """``-n auto`` is answered here, before xdist counts the cores."""
    hook = request.config.pluginmanager.hook.pytest_xdist_auto_num_workers

    assert hook.get_hookimpls()[-1].function is plugin.pytest_xdist_auto_num_workers
