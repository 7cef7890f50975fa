"""The wheel, built by way of the sdist, has all that the package needs, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

#: Python 3.11 has filters only since 3.11.4.
SAFELY: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}

PROBE = """
from pgobserve.triggers import templates

print(templates.root())
templates.read("sql/notify.v1.sql")
templates.read("django/install.v1.py-tpl")
"""


def _build(source: Path, kind: str, to: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(to)],
        cwd=source,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (made,) = to.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist of the checkout, and the wheel of the unpacked sdist."""
    top = tmp_path_factory.mktemp("dist")
    sdist = _build(ROOT, "sdist", top / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(top / "source", **SAFELY)
    (source,) = (top / "source").iterdir()
    return _build(source, "wheel", top / "wheel")


def _files(folder: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_all_files_are_there(wheel: Path) -> None:
    """Each file of the package and each template is in the wheel, the templates inside it."""
    names = set(zipfile.ZipFile(wheel).namelist())
    templates = {f"pgobserve/{name}" for name in _files("migrations_templates")}

    assert len(templates) > 10
    assert (_files("pgobserve") | templates) - names == set()


def test_nothing_else_is_there(wheel: Path) -> None:
    """Besides the package a wheel has only what describes it."""
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}

    assert {top.partition("-")[0] for top in tops} == {"pgobserve"}
    assert sorted(top.endswith(".dist-info") for top in tops) == [False, True]


def test_metadata_stands_alone(wheel: Path) -> None:
    """What the package index shows has no relative link, and Daphne is required by extras alone."""
    archive = zipfile.ZipFile(wheel)
    (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
    metadata = message_from_bytes(archive.read(name))
    links = re.findall(r"\]\(([^)\s]+)\)", str(metadata.get_payload()))
    urls = [each.partition(", ")[2] for each in metadata.get_all("Project-URL", [])]

    assert len(links) > 10
    assert len(urls) > 2
    assert [each for each in [*links, *urls] if not each.startswith("https://")] == []
    assert [
        each
        for each in metadata.get_all("Requires-Dist", [])
        if "daphne" in each and "extra ==" not in each
    ] == []


def test_templates_are_found(wheel: Path, tmp_path: Path) -> None:
    """The package reads its templates where it is installed, not from a checkout."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == str(tmp_path / "pgobserve" / "migrations_templates")
