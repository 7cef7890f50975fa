"""Each sub-command and each of its options is documented."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from django.core.management.base import DjangoHelpFormatter

from pgobserve.management.commands.pgobserve import SUBCOMMANDS, Command
from pgobserve.triggers.server.drift import State

PAGE = (Path(__file__).parents[3] / "docs/reference/commands.md").read_text(encoding="utf-8")

#: Those of all of Django's commands.
DJANGOS = set(DjangoHelpFormatter.show_last) | {"--help", "-h"}


def _parsers() -> dict[str, argparse.ArgumentParser]:
    parser = Command().create_parser("manage.py", "pgobserve")
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(commands.choices)


def _section(name: str) -> str:
    common, _, sections = PAGE.partition("\n## ")
    (section,) = (each for each in sections.split("\n## ") if each.startswith(f"`{name}`\n"))
    return common + section


@pytest.mark.parametrize("name", sorted(SUBCOMMANDS))
def test_options_are_documented(name: str) -> None:
    """Its section, or the part that is common to all, names each option."""
    options = {text for action in _parsers()[name]._actions for text in action.option_strings}

    assert {text for text in options - DJANGOS if f"{text}" not in _section(name)} == set()


def test_every_sub_command_runs() -> None:
    """What can be parsed can be run."""
    assert set(_parsers()) == set(SUBCOMMANDS)


@pytest.mark.parametrize("state", list(State))
def test_states_are_documented(state: State) -> None:
    """So is each state that ``status`` may print."""
    assert f"| `{state}` |" in _section("status")
