"""Models by label, and the tables that hold their rows."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from django.apps import apps

if TYPE_CHECKING:
    from pgobserve.sql.keys import Model


@lru_cache(maxsize=4096)
def model_of(label: str) -> Model | None:
    """Return the model with an ``app.model`` label; None for unknown labels, which payloads may contain."""
    try:
        return apps.get_model(label)
    except (LookupError, ValueError):
        return None


@lru_cache(maxsize=1024)
def tables_of(model: Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """
    Return the tables that hold a model's rows.

    Returns:
        The tables with the row's key: the model's and, with multi-table inheritance, its parents'. Then
        parents' tables with another key, such as a second parent's, which need a full refresh.
    """
    concrete = model._meta.concrete_model or model
    keyed: list[str] = [concrete._meta.db_table]
    full_refresh: list[str] = []
    for parent, link in concrete._meta.parents.items():
        if link is None:
            continue
        parent_keyed, parent_full_refresh = tables_of(parent)
        (keyed if link.primary_key else full_refresh).extend(parent_keyed)
        full_refresh.extend(parent_full_refresh)
    return tuple(dict.fromkeys(keyed)), tuple(dict.fromkeys(full_refresh))


@lru_cache(maxsize=1024)
def labels_of(table: str) -> tuple[str, ...]:
    """Return the lower-case labels that payloads may give for changes of a table."""
    return tuple(
        model._meta.label_lower
        for model in apps.get_models(include_auto_created=True)
        if model._meta.db_table == table and not model._meta.proxy
    )


def title_of(table: str) -> str:
    """Return a table's model label for people, such as ``library.Book``."""
    models = (model_of(label) for label in labels_of(table))
    return next((model._meta.label for model in models if model is not None), table)
