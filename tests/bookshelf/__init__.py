"""An app of models that refer to each other in every way that Django has."""

from __future__ import annotations
