"""The demo's port, and the signals that end it."""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack

import pytest

from pgobserve.demo import serving
from pgobserve.demo.serving import SIGNALS, stopping


def test_any_port() -> None:
    """Port 0 is any free port of loopback."""
    with serving.claim(0) as listener:
        host, port = listener.getsockname()

    assert host == "127.0.0.1"
    assert port > 0


def test_wanted_port_is_taken() -> None:
    """A port that was asked for and is taken is refused with the remedy."""
    with serving.claim(0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(RuntimeError, match=rf"Port {port} .* is taken .*--port 8010"):
            serving.claim(port)


def test_default_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the default port is taken, one of the next is claimed."""
    with serving.claim(0) as listener:
        monkeypatch.setattr(serving, "DEFAULT_PORT", listener.getsockname()[1])
        with serving.claim(None) as other:
            port = other.getsockname()[1]

    assert serving.DEFAULT_PORT < port < serving.DEFAULT_PORT + serving.TRIES


def test_all_ports_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the next ports are taken too, the error says which."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        monkeypatch.setattr(serving, "DEFAULT_PORT", port)
        monkeypatch.setattr(serving, "TRIES", 1)
        with pytest.raises(RuntimeError, match=f"ports {port} to {port} .* --port"):
            serving.claim(None)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_leaves_the_block(number: signal.Signals) -> None:
    """A signal leaves the block quietly, and the handlers are put back."""
    before = signal.getsignal(number)
    reached = []

    with stopping() as state:
        signal.raise_signal(number)
        reached.append("after")

    assert state.requested
    assert not reached
    assert signal.getsignal(number) is before


def test_signal_calls_instead() -> None:
    """While something else is to be called, a signal calls it and raises nothing."""
    calls = []

    with stopping() as state, state.instead(lambda: calls.append("stop")):
        signal.raise_signal(signal.SIGTERM)

    assert calls == ["stop"]


def test_further_signals_do_not_disturb() -> None:
    """The second and later signals are ignored, so that tidying up is done once and whole."""
    tidied = []

    with stopping():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            tidied.append("all")

    assert tidied == ["all"]


def test_ignored_signal_stays_ignored() -> None:
    """Under nohup a closed terminal is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping() as state:
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)

    assert not state.requested
