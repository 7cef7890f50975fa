"""Which tables hold a model's rows, and which model a payload speaks of."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from django.apps import apps

if TYPE_CHECKING:
    from pgobserve.sql.keys import Model


@lru_cache(maxsize=4096)
def model_of(label: str) -> Model | None:
    """Return the model with this ``app.model`` label, or None: labels in payloads can be forged."""
    try:
        return apps.get_model(label)
    except (LookupError, ValueError):
        return None


@lru_cache(maxsize=1024)
def tables_of(model: Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """
    Return the tables whose changes concern a model's rows.

    Returns:
        Tables with the row's own key: the model's, and with multi-table inheritance its parents'.
        Then parents' tables with a key of their own, as a second parent has it.
    """
    concrete = model._meta.concrete_model or model
    keyed: list[str] = [concrete._meta.db_table]
    full_refresh: list[str] = []
    for parent, link in concrete._meta.parents.items():
        if link is None:
            continue
        of_parent, wide_of_parent = tables_of(parent)
        (keyed if link.primary_key else full_refresh).extend(of_parent)
        full_refresh.extend(wide_of_parent)
    return tuple(dict.fromkeys(keyed)), tuple(dict.fromkeys(full_refresh))


@lru_cache(maxsize=1024)
def labels_of(table: str) -> tuple[str, ...]:
    """Return the labels, in lower case, under which changes of a table may be told."""
    return tuple(
        model._meta.label_lower
        for model in apps.get_models(include_auto_created=True)
        if model._meta.db_table == table and not model._meta.proxy
    )


def title_of(table: str) -> str:
    """Return the label of the model whose rows are in a table, as people write it."""
    models = (model_of(label) for label in labels_of(table))
    return next((model._meta.label for model in models if model is not None), table)
