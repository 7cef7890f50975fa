"""The commands of the guide for projects that move from djangochannelsrestframework."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

GUIDE = Path(__file__).parents[3] / "docs/how-to/migrate-from-dcrf.md"


def test_renaming(tmp_path: Path) -> None:
    """They rename imports in the project's files, and leave installed packages and other files alone."""
    old, new = "from djangochannelsrestframework import mixins\n", "from pgobserve import mixins\n"
    own = [tmp_path / "app" / "consumers.py", tmp_path / "with space.py"]
    others = [
        tmp_path / ".venv/lib/python3.12/site-packages/djangochannelsrestframework/mixins.py",
        tmp_path / "notes.txt",
    ]
    for path in (*own, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(old)
    block = re.search(r"```console\n\$ pip[^\n]*\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert block is not None
    commands = re.sub(r"^\$ ", "", block[1], flags=re.MULTILINE)

    subprocess.run(["sh", "-ec", commands], cwd=tmp_path, check=True)

    assert [path.read_text() for path in own] == [new, new]
    assert [path.read_text() for path in others] == [old, old]
    assert len([each for each in tmp_path.rglob("*") if each.is_file()]) == 4
    # BSD's sed takes the suffix for copies from the next argument unless it is attached.
    assert not re.search(r"sed -i(?![.])", commands)
