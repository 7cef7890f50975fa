"""The registry of consumers and observers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from pgobserve.install import consumer_registry
from pgobserve.install.consumer_registry import evented_models, observe, observe_events
from pgobserve.install.consumer_registry import observed_models as all_observed_models

if TYPE_CHECKING:
    import pytest


class Importing:
    """A consumer and an observer whose models import more of them, as another thread may."""

    kept: list[Any] = []

    @classmethod
    def observed_models(cls) -> list[Any]:
        cls.kept.append(type("Another", (), {"observed_models": list}))
        observe(cls.kept[-1])
        return []

    @property
    def evented_models(self) -> list[Any]:
        self.kept.append(type("Another", (), {"evented_models": ()})())
        observe_events(self.kept[-1])
        return []


def test_grows_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that registers while the registry is read does not disturb the reader."""
    for name in ("_consumers", "_observers"):
        monkeypatch.setattr(consumer_registry, name, WeakSet())
    kept = Importing()
    observe(Importing)
    observe_events(kept)

    assert all_observed_models() == []
    assert evented_models() == []
