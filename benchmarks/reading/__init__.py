"""What the benchmarks of the read side share: a project, servers, a client."""

from __future__ import annotations
