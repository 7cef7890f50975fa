"""The demo's Django project: the ships of a harbour, and a page that shows them live."""

from __future__ import annotations
