"""From models to registrations."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from pgobserve.errors import ConfigurationError
from pgobserve.triggers import registry
from tests.project import shapes
from tests.project.models import Item


def _labels(*models: Any) -> list[str]:
    return [each.label for each in registry.build(models)]


def test_find() -> None:
    """A label is found in any case; auto-created through models have one, too."""
    assert registry.find("auth.User") is User
    assert registry.find("auth.user") is User
    assert registry.find("auth.User_groups") is User.groups.through


@pytest.mark.parametrize("label", ["auth.Nope", "nope.User", "User", "", "a.b.c"])
def test_unknown_label(label: str) -> None:
    """An unknown label is refused with the format of labels."""
    with pytest.raises(ConfigurationError, match=f"There is no model {label}. Labels are written"):
        registry.find(label)


def test_swapped_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is swapped for another has no table; the message names the other."""
    monkeypatch.setitem(User._meta.__dict__, "swapped", "shop.Customer")

    with pytest.raises(ConfigurationError, match=r"swapped for shop\.Customer\. Name that one"):
        registry.find("auth.User")


def test_one_registration_per_table() -> None:
    """Proxies, twins and repetitions come to one registration, in the order given."""
    assert _labels(User, shapes.ItemTwin, Item, shapes.ItemProxy, User) == [
        "auth.user",
        "project.item",
    ]


def test_parents() -> None:
    """A child brings all its concrete parents."""
    assert _labels(shapes.Pizzeria) == ["project.pizzeria", "project.restaurant", "project.place"]


@pytest.mark.parametrize(
    ("model", "key"),
    [
        (User, ("id",)),
        (shapes.PairKey, ("left", "right")),
        (shapes.MixedCase, ("Key Column",)),
        (shapes.Quoted, ("Id",)),
        (shapes.Pizzeria, ("restaurant_ptr_id",)),
    ],
)
def test_key(model: Any, key: tuple[str, ...]) -> None:
    """The key is known by its columns' names in the catalog."""
    assert registry.build([model])[0].key == key


def test_options() -> None:
    """Options go to the model that they name, fields become columns."""
    options = {"project.wide": {"columns": ["shown", "owner", "shown"], "always": True}}
    wide, user = registry.build([shapes.Wide, User], options, channel="other")

    assert (wide.columns, wide.always, wide.channel) == (("shown", "owner_id"), True, "other")
    assert (user.columns, user.always, user.channel) == (None, None, "other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": []}, r"has no option column for project\.Wide\. It knows: columns, always"),
        ({"transport": "pigeon"}, r"no transport 'pigeon' for project\.Wide\. There is: notify"),
        ({"always": "yes"}, r"option always of project\.Wide must be True or False"),
        ({"columns": ["nope"]}, r"project\.Wide has no field nope"),
        ({"columns": "shown"}, r"must be a list of field names, not a string"),
        ({"columns": ["tags"]}, r"project\.Wide\.tags has no column.*observe the through model"),
        ({"columns": 5}, r"must be a list of field names, not int"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    """A wrong option is refused with its model and the valid values."""
    with pytest.raises(ConfigurationError, match=message):
        registry.build([shapes.Wide], {"project.Wide": options})


def test_options_of_an_unknown_model() -> None:
    """Options for a model that does not exist are refused."""
    with pytest.raises(ConfigurationError, match=r"There is no model shop\.Order"):
        registry.build([User], {"shop.Order": {}})
