"""What the demo's command says."""

from __future__ import annotations

import sys

import pytest

from pgobserve.__main__ import main
from pgobserve.demo import command
from pgobserve.demo.command import psql_command
from pgobserve.demo.project.config import Config

PARAMETERS = {
    "host": "127.0.0.1",
    "port": 5499,
    "user": "harbour",
    "password": "a-b_c",
    "dbname": "harbour",
}


def test_psql_command_is_a_url() -> None:
    """The command to paste needs nothing else to be set."""
    command = psql_command("/opt/bin/psql", PARAMETERS)

    assert command == "/opt/bin/psql postgresql://harbour:a-b_c@127.0.0.1:5499/harbour"


def test_psql_command_for_a_socket() -> None:
    """A directory of sockets, which does not go into a URL, is given by keyword."""
    command = psql_command("/opt/bin/psql", PARAMETERS | {"host": "/run/pg"})

    assert "host=/run/pg" in command
    assert "password=a-b_c" in command


def test_banner() -> None:
    """The banner has the page, the command to paste and how to stop; without a terminal no escapes."""
    config = Config(
        database={}, port=8123, psql="psql postgresql://x", server="yours", commit_times=True
    )

    text = command.banner(config, "http://127.0.0.1:8123/", colour=False)

    for part in ("http://127.0.0.1:8123/", "psql postgresql://x", "yours", "Ctrl-C"):
        assert part in text
    assert "\033" not in text


def test_another_port_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A page that is not on the expected port says so."""
    command.print_start(8001, 8000)

    assert "Port 8000 is taken, so the page is on port 8001." in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["zork"], ["demo", "--port", "x"], ["demo", "--port", "70000"]]
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage ends with 2 and shows the usage."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    assert "usage: python -m pgobserve" in capsys.readouterr().err


def test_demo_extra_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the demo's extra the command says how to install it."""
    monkeypatch.setitem(sys.modules, "pgobserve.demo.command", None)

    assert main(["demo"]) == 1
    assert "pip install 'pgobserve[demo]'" in capsys.readouterr().err


def test_daphne_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a web server the demo starts nothing, and says what to install."""
    monkeypatch.setattr("pgobserve.demo.serving.find_spec", {}.get)
    monkeypatch.setattr("pgobserve.demo.command._serve", None)

    assert main(["demo"]) == 1
    message = capsys.readouterr().err
    assert "daphne is not installed" in message
    assert "pip install 'pgobserve[demo]'" in message
