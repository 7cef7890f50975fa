"""Names that code written for djangochannelsrestframework binds to."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("base_observer", "BaseObserver"),
        ("model_observer", "Action"),
        ("model_observer", "ModelObserver"),
        ("observer", "Observer"),
        ("generics", "ObserverModelInstanceMixin"),
    ],
)
def test_modules(module: str, name: str) -> None:
    """The modules have DCRF's names."""
    assert hasattr(importlib.import_module(f"pgobserve.observer.{module}"), name)


def test_decorators_stay() -> None:
    """Importing a module does not put it in the place of the decorator of the same name."""
    importlib.import_module("pgobserve.observer.model_observer")
    importlib.import_module("pgobserve.observer.observer")
    package = importlib.import_module("pgobserve.observer")

    assert callable(package.model_observer)
    assert callable(package.observer)
