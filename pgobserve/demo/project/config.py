"""The demo's configuration, which `pgobserve.demo.command` sets before Django's settings are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """
    The configuration; the defaults suffice for type checkers.

    Attributes:
        psql: The command that opens a terminal on the database.
        server: A description of the server.
        commit_times: Whether the server records commit timestamps.
    """

    database: dict[str, Any] = field(default_factory=lambda: {"dbname": "harbour"})
    port: int = 8000
    psql: str = "psql"
    server: str = ""
    commit_times: bool = False

    @property
    def origins(self) -> list[str]:
        """The origins of the page; any other is another website."""
        return [f"http://{host}:{self.port}" for host in ("127.0.0.1", "localhost")]


current = Config()
