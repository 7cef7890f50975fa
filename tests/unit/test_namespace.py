"""Namespaces: which names are taken, what follows from them, and what a project's own is."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections

from pgobserve import conf
from pgobserve.errors import ConfigurationError
from pgobserve.wire import ALONE, Namespace, Operation

NAMES = ("", "a", "b", "i", "a_i", "x" * 45)


def test_alone() -> None:
    """The namespace of a project that is alone has the plain names."""
    assert ALONE.schema == ALONE.channel == "pgobserve"
    assert ALONE.mute_setting == "pgobserve.mute"
    assert ALONE.triggers == ("pgobserve_i", "pgobserve_u", "pgobserve_d", "pgobserve_t")
    assert ALONE.trigger(Operation.DELETE) == "pgobserve_d"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_shared(name: str) -> None:
    """No name of a namespace is one of another's, and PostgreSQL cuts none off."""
    mine = Namespace(name)

    assert all(len(each) <= 63 for each in (mine.schema, mine.channel, *mine.all_triggers))
    for other in map(Namespace, {*NAMES} - {name}):
        assert other.schema != mine.schema
        assert other.channel != mine.channel
        assert other.mute_setting != mine.mute_setting
        assert mine.outbox_lock != other.outbox_lock
        assert {*other.triggers}.isdisjoint(mine.triggers)


@pytest.mark.parametrize("name", ["Shop", "a-b", "a b", "é", 'x"', "x'", "x" * 46, "%", "a\n"])
def test_refused(name: str, settings: Any) -> None:
    """A name that would need quotes, or be cut off, is refused, and the setting is named."""
    with pytest.raises(ValueError, match="lower-case"):
        Namespace(name)
    settings.PGOBSERVE = {"NAMESPACE": name}
    with pytest.raises(ConfigurationError, match=r"NAMESPACE.*lower-case"):
        conf.namespace("default")


def test_refused_type(settings: Any) -> None:
    """What is no text is refused, too."""
    settings.PGOBSERVE = {"NAMESPACE": 5}
    with pytest.raises(ConfigurationError, match="NAMESPACE"):
        conf.namespace("default")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, ""),
        ({"options": "-c statement_timeout=5s"}, ""),
        ({"options": "-c search_path=public"}, ""),
        ({"options": "-c search_path=staging,public"}, "staging"),
    ],
)
def test_default(
    options: dict[str, str], name: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default it is the schema that the settings put the tables into; the setting wins."""
    monkeypatch.setitem(connections.databases["default"], "OPTIONS", options)
    settings.PGOBSERVE = {}
    assert conf.namespace("default") == Namespace(name)
    assert conf.channel("default") == Namespace(name).channel

    settings.PGOBSERVE = {"NAMESPACE": "mine", "CHANNEL": "loud"}
    assert conf.namespace("default") == Namespace("mine")
    assert conf.channel("default") == "loud"

    settings.PGOBSERVE = {"NAMESPACE": ""}
    assert conf.namespace("default") == ALONE


def test_default_of_odd_schemas(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schemas whose names can't be a namespace's have different ones all the same."""
    settings.PGOBSERVE = {}
    found = set()
    for schema in ('"Shop"', '"shop-1"', '"shop 1"', "é", "x" * 60, "x" * 61):
        escaped = schema.replace(" ", "\\ ")
        options = {"options": f"-c search_path={escaped}"}
        monkeypatch.setitem(connections.databases["default"], "OPTIONS", options)
        found.add(conf.namespace("default"))
    assert len(found) == 6


def test_alias_that_is_not_there(settings: Any) -> None:
    """An alias that the settings lack has the plain names; what uses it says that it is missing."""
    settings.PGOBSERVE = {}
    assert conf.namespace("nowhere") == ALONE
