"""The types that users see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(300)
def test_project_that_subclasses_everything() -> None:
    """A project that subclasses all there is passes mypy's strict checks."""
    done = subprocess.run(
        [sys.executable, "-X", "dev=no", "-m", "mypy", "tests/typing/project.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
