"""What the benchmarks of the write side share."""

from __future__ import annotations
