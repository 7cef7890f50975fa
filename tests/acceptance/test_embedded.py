"""The embedded PostgreSQL under odd circumstances."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psycopg
import pytest

from pgobserve.demo.postgres import binaries, embedded


def test_without_its_password_nobody_comes_in() -> None:
    """Other users of the machine can't use the server: it could run programs for them."""
    with embedded() as server:
        stranger = server.parameters() | {"password": "guessed"}
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(**stranger)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as another user")
def test_root_below_a_closed_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root runs it from programs, and with a TMPDIR, that only root can reach."""
    package = binaries().parents[1]
    with tempfile.TemporaryDirectory() as name:  # made with mode 0700
        closed = Path(name)
        for part in (package, package.with_name(package.name + ".libs")):
            if part.is_dir():
                shutil.copytree(part, closed / part.name, symlinks=True)
        monkeypatch.setattr(tempfile, "tempdir", name)
        programs = closed / package.name / binaries().relative_to(package)
        with (
            embedded(bin_directory=programs) as server,
            psycopg.connect(**server.parameters()) as connection,
        ):
            assert connection.execute("SELECT 1").fetchone() == (1,)
