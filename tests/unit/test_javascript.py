"""The JavaScript client, against a WebSocket whose other end is the test."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "pgobserve/static/pgobserve"
TESTS = Path(__file__).parent / "javascript"


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_client(tmp_path: Path) -> None:
    """All of tests/unit/javascript holds."""
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for path in (*CLIENT.glob("*.js"), *TESTS.glob("*.js")):
        shutil.copy(path, tmp_path)

    run = subprocess.run(
        ["node", "--test", "client.test.js"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
