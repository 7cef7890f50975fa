"""The port of the demo's page."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from pgobserve.demo import address


def test_any_port() -> None:
    """Port 0 is any free port of loopback."""
    with address.claim(0) as listener:
        host, port = listener.getsockname()

    assert host == "127.0.0.1"
    assert port > 0


def test_wanted_port_is_taken() -> None:
    """A port that was asked for and is taken is refused with the remedy."""
    with address.claim(0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(RuntimeError, match=rf"Port {port} .* is taken .*--port 8010"):
            address.claim(port)


def test_default_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the default port is taken, one of the next is claimed."""
    with address.claim(0) as listener:
        monkeypatch.setattr(address, "DEFAULT_PORT", listener.getsockname()[1])
        with address.claim(None) as other:
            port = other.getsockname()[1]

    assert address.DEFAULT_PORT < port < address.DEFAULT_PORT + address.TRIES


def test_all_ports_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the next ports are taken too, the error says which."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        monkeypatch.setattr(address, "DEFAULT_PORT", port)
        monkeypatch.setattr(address, "TRIES", 1)
        with pytest.raises(RuntimeError, match=f"ports {port} to {port} .* --port"):
            address.claim(None)
