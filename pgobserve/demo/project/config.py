"""What `pgobserve.demo.command` tells the demo's Django project, through the environment."""

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
    The demo's circumstances.

    Attributes:
        database: How to connect, as psycopg keywords.
        port: The page's port on 127.0.0.1.
        psql: The command that opens a terminal on the database.
        server: The server, in words.
        commit_times: Whether the server remembers when a transaction was committed.
    """

    database: dict[str, Any]
    port: int
    psql: str
    server: str
    commit_times: bool

    def publish(self) -> None:
        """Put this where the project's settings will look."""
        os.environ[VARIABLE] = json.dumps(asdict(self))


@cache
def get() -> Config:
    """Return the configuration; without one, that of a server on the usual port, for checkers."""
    text = os.environ.get(VARIABLE)
    if text is None:
        return Config(
            database={"dbname": "harbour"}, port=8000, psql="psql", server="", commit_times=False
        )
    return Config(**json.loads(text))


def origins() -> list[str]:
    """Return the origins that the page is served from; any other is another website."""
    return [f"http://{host}:{get().port}" for host in ("127.0.0.1", "localhost")]
