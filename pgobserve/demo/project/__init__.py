"""The demo's Django project: a harbour, its ships, and a page that shows them live."""

from __future__ import annotations
