"""The types that users see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(300)
def test_typed_code() -> None:
    """
    A project that subclasses everything passes mypy's strict checks, and the hub's seam keeps its types.

    In ``seam.py`` each ignored error must be one: there the permissions of one subscription would reach
    another.
    """
    done = subprocess.run(
        [sys.executable, "-X", "dev=no", "-m", "mypy", "tests/typing"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
