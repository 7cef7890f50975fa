"""The system check of the setting."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import checks

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin


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
