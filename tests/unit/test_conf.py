"""The setting PGOBSERVE."""

from __future__ import annotations

import pytest

from pgobserve import conf
from pgobserve.errors import ConfigurationError


def test_defaults_without_setting() -> None:
    """A project without the setting gets the defaults."""
    assert conf.get() == conf.Settings()


def test_unknown_key_is_named(settings: object) -> None:
    """An unknown key is refused with its name and with those that are known."""
    settings.PGOBSERVE = {"CHANEL": "x"}  # type: ignore[attr-defined]

    with pytest.raises(ConfigurationError, match=r"no setting CHANEL. It knows: MODELS, TRANSPORT"):
        conf.get()


def test_old_wake(settings: object) -> None:
    """The old name of a way to wake readers is refused with the new name."""
    settings.PGOBSERVE = {"OUTBOX_WAKE": "gated"}  # type: ignore[attr-defined]

    with pytest.raises(ConfigurationError, match="'gated' is now called 'notify'"):
        conf.get()


def test_change_is_seen(settings: object) -> None:
    """A changed setting is read again."""
    settings.PGOBSERVE = {"MAX_SUBSCRIPTIONS": 7}  # type: ignore[attr-defined]

    assert conf.get().MAX_SUBSCRIPTIONS == 7
