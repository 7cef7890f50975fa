"""DCRF's JavaScript client, over ``channelsmultiplexer``, with consumers of ours."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance import server as processes
from tests.acceptance.server import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).parent / "dcrf_client"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js and npm are not installed"),
]


@pytest.fixture(scope="module")
def session_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's session, in a directory with the packages that it needs."""
    directory = tmp_path_factory.mktemp("node")
    for name in ("package.json", "session.js"):
        shutil.copy(SCRIPT / name, directory)
    subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"],
        cwd=directory,
        check=True,
        timeout=120,
    )
    return directory / "session.js"


@pytest.fixture
def multiplexed(installed: processes.Database, tmp_path: Path) -> Iterator[processes.Server]:
    """A server with a consumer behind ``channelsmultiplexer``."""
    application = "tests.acceptance.dcrf_client.asgi:application"
    with processes.serve("daphne", installed, tmp_path, application) as running:
        yield running


async def run(script: Path, url: str) -> dict[str, Any]:
    """Return what the client's session saw."""
    node = await asyncio.create_subprocess_exec(
        "node", str(script), url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, errors = await node.communicate()
    except TimeoutError:
        node.kill()
        await node.wait()
        raise
    assert node.returncode == 0, errors.decode()
    seen: dict[str, Any] = json.loads(out)
    return seen


@pytest.mark.timeout(300)
async def test_session(session_script: Path, multiplexed: processes.Server) -> None:
    """The client creates, reads, changes, watches, reconnects, cancels and deletes."""
    seen = await run(session_script, multiplexed.url)

    pk = seen["created"]["id"]
    assert seen["retrieved"] == {"id": pk, "username": "ann", "email": "ann@example.com"}
    assert seen["subscribed"] is None
    assert seen["updated"]["email"] == "two@example.com"
    assert seen["patched"]["email"] == "three@example.com"
    assert [action for action, _ in seen["events"]] == ["update", "update", "update", "delete"]
    assert [data["email"] for _, data in seen["events"][:3]] == [
        "two@example.com",
        "three@example.com",
        "four@example.com",
    ]
    assert seen["events"][3][1] == {"id": pk}
    assert seen["deleted"] is None
    assert seen["missing"] == 404
    assert seen["cancelled"] is True
    assert "cancelledHeard" not in seen
    assert seen["list"] == []
