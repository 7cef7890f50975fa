"""Runnable comparisons, each a ratio measured side by side in one run: ``python -m benchmarks``."""

from __future__ import annotations
