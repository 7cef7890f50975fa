"""The demo's configuration, which `pgobserve.demo.command` passes through the environment."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

VARIABLE = "PGOBSERVE_DEMO"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """
    The configuration.

    Attributes:
        database: Connection parameters, as psycopg keywords.
        port: The page's port on 127.0.0.1.
        psql: The command that opens a terminal on the database.
        server: A description of the server.
        commit_times: Whether the server records commit timestamps.
    """

    database: dict[str, Any]
    port: int
    psql: str
    server: str
    commit_times: bool

    def publish(self) -> None:
        """Set the environment variable that the project's settings read."""
        os.environ[VARIABLE] = json.dumps(asdict(self))


@cache
def get() -> Config:
    """Return the configuration; by default a server on the usual port, for type checkers."""
    text = os.environ.get(VARIABLE)
    if text is None:
        return Config(
            database={"dbname": "harbour"}, port=8000, psql="psql", server="", commit_times=False
        )
    return Config(**json.loads(text))


def origins() -> list[str]:
    """Return the origins of the page; any other is another website."""
    return [f"http://{host}:{get().port}" for host in ("127.0.0.1", "localhost")]
