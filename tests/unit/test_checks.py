"""The system check of the setting."""

from __future__ import annotations

import re
import sys
from types import ModuleType, SimpleNamespace
from typing import Any
from weakref import WeakSet

import pytest
from django.contrib.auth.models import User
from django.core import checks
from django.db.models import QuerySet

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.install import orm_caches
from pgobserve.observer import ModelObserver
from pgobserve.observer.generics import ObserverModelInstanceMixin


@pytest.fixture(autouse=True)
def only_own_consumers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes of other tests, which live until the collector runs, are not checked here."""
    for name in ("_consumers", "_observers"):
        monkeypatch.setattr(f"pgobserve.install.consumer_registry.{name}", WeakSet())


def _messages() -> list[checks.CheckMessage]:
    # Of no app: Django checks the models of apps, and may connect for that.
    found = checks.run_checks(app_configs=[])
    return [each for each in found if (each.id or "").startswith("pgobserve")]


def test_good_settings(settings: Any) -> None:
    """Good settings are no matter."""
    settings.PGOBSERVE = {"MODELS": {"auth.User": {"columns": ["username"], "always": True}}}

    assert _messages() == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"MODEL": []}, "PGOBSERVE has no setting MODEL"),
        ([], "must be a dictionary, not list"),
        ({"MODELS": ["auth.Nope"]}, "There is no model auth.Nope"),
        ({"MODELS": {"auth.User": {"column": []}}}, "has no option column for auth.User"),
        ({"MODELS": {"auth.User": {"columns": ["x"]}}}, "auth.User has no field x"),
        ({"MODELS": {"auth.User": None}}, "options of auth.User must be a dictionary"),
        ({"MODELS": "auth.User"}, "must be a list of labels or a dictionary"),
        ({"MODELS": 5}, "must be a list of labels or a dictionary"),
        ({"MODELS": ["auth.User"], "TRANSPORT": "pigeon"}, "no transport 'pigeon'"),
        ({"CHANNEL": "Loud"}, "CHANNEL.*lower-case"),
        ({"CHANNEL": ""}, "CHANNEL.*lower-case"),
        ({"CHANNEL": "x" * 64}, "CHANNEL.*63 bytes"),
    ],
)
def test_bad_settings(settings: Any, value: object, message: str) -> None:
    """What is wrong in ``PGOBSERVE`` is an error at every start."""
    settings.PGOBSERVE = value

    (found,) = _messages()
    assert found.id == "pgobserve.E001"
    assert found.level == checks.ERROR
    assert re.search(message, found.msg)


def test_related() -> None:
    """What a consumer names in ``observe_related`` must be there; its author learns what is."""

    class Users(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
        queryset = User.objects.all()
        observe_related = ["groups", "group"]

    (found,) = _messages()
    Users.observe_related = ["groups"]
    assert (found.id, found.obj) == ("pgobserve.E003", f"{__name__}.{Users.__qualname__}")
    assert found.msg == (
        'Users.observe_related has "group", but auth.User has no relation "group". '
        "It has: groups, user_permissions."
    )
    assert _messages() == []


def _cachalot(cached: bool) -> dict[str, Any]:
    return {
        "cachalot.settings": SimpleNamespace(cachalot_settings=SimpleNamespace(CACHALOT_ENABLED=1)),
        "cachalot.utils": SimpleNamespace(
            is_cachable=lambda table: cached and table == "auth_user"
        ),
    }


def _cacheops(*, enabled: bool, ops: set[str]) -> dict[str, Any]:
    settings = SimpleNamespace(CACHEOPS_ENABLED=enabled)
    return {
        "cacheops.conf": SimpleNamespace(settings=settings, model_profile=lambda _: {"ops": ops})
    }


@pytest.mark.parametrize(
    ("app", "modules", "package"),
    [
        ("cachalot", _cachalot(True), "django-cachalot"),
        ("cachalot", _cachalot(False), None),
        ("cacheops", _cacheops(enabled=True, ops={"get"}), "django-cacheops"),
        ("cacheops", _cacheops(enabled=True, ops=set()), None),
        ("cacheops", _cacheops(enabled=False, ops={"get"}), None),
    ],
)
def test_orm_caches(
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    app: str,
    modules: dict[str, Any],
    package: str | None,
) -> None:
    """A cache in front of an observed table is named, with what leaves the table out of it."""
    settings.PGOBSERVE = {"MODELS": ["auth.User"]}
    # Other checks look at the apps that are really installed.
    installed = SimpleNamespace(is_installed=lambda name: name == app)
    monkeypatch.setattr(orm_caches, "apps", installed)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name.partition(".")[0], ModuleType(name))
        monkeypatch.setitem(sys.modules, name, module)

    # Consumers of other test modules may observe other tables.
    found = [e for e in _messages() if (e.id, e.obj) == ("pgobserve.W040", "auth.User")]
    assert [each.msg.partition(" ")[0] for each in found] == [package] * (package is not None)
    assert all("auth" in str(each.hint) for each in found)


def test_querysets_that_cache(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager whose querysets cache is named too."""
    cached = type("CachingQuerySet", (QuerySet,), {"__module__": "caching.base"})
    settings.PGOBSERVE = {"MODELS": ["auth.User"]}
    monkeypatch.setattr(User._default_manager, "_queryset_class", cached)

    (found,) = [each for each in _messages() if each.id == "pgobserve.W040"]
    assert found.msg.startswith("django-cache-machine caches rows of auth.User.")


def test_overridden_in_vain() -> None:
    """Methods of DCRF's that nothing calls are named where a project overrides them, with the remedy."""

    class Nested(ModelObserver):
        def _connect(self) -> None: ...

        def database_event(self, instance: Any, action: Any) -> None: ...

    class Users(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
        queryset = User.objects.all()

        def _subscribe(self, request_id: Any, groups: Any) -> None: ...

        async def handle(self, message: Any, **kwargs: Any) -> None: ...

    observer = Nested(Users.handle, User)
    name = f"{__name__}.test_overridden_in_vain.<locals>"

    found = [each for each in _messages() if each.id == "pgobserve.W020"]

    del observer, Users._subscribe  # what other tests define is checked, too
    assert [each.msg.partition("() ")[0] for each in found] == [
        f"{name}.Nested._connect",
        f"{name}.Nested.database_event",
        f"{name}.Users._subscribe",
    ]
    assert "groups_for_signal" in str(found[1].hint)
