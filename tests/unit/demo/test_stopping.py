"""Signals that end the demo."""

from __future__ import annotations

import signal

import pytest

from pgobserve.demo.stopping import SIGNALS, stopping


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
