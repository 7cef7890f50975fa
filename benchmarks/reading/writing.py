"""Who changes the rows: a plain connection that knows nothing of Django."""

from __future__ import annotations

import itertools
import time
from typing import Any

import psycopg

#: Each change has a number of its own, so that a frame tells which one it shows.
numbers = itertools.count(1)

ONE = "UPDATE reading_item SET rank = %s WHERE id = 1"
MANY = "UPDATE reading_item SET rank = %s WHERE id <= 1000"


class Writer:
    """Changes rows of one database."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.parameters = parameters
        self._connection = psycopg.connect(**parameters)
        self.rank = 0

    def change(self, query: str = ONE) -> int:
        """Change rows; return when COMMIT was sent, in nanoseconds."""
        self.rank = next(numbers)
        self._connection.execute(query, [self.rank])
        began = time.monotonic_ns()
        self._connection.commit()
        return began

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
