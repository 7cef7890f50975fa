"""Ctrl-C, SIGTERM and a closed terminal all end the demo in order, whatever it is doing."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

#: Windows has no SIGHUP.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Stopped(BaseException):
    """Someone asked us to end; no error."""


class Stopping:
    """
    What a signal does now: raise `Stopped`, or call what `instead` was given.

    Attributes:
        requested: Whether a signal has arrived.
    """

    def __init__(self) -> None:
        self.requested = False
        self._call: Callable[[], object] | None = None

    @contextlib.contextmanager
    def instead(self, call: Callable[[], object]) -> Iterator[None]:
        """Have a signal call this while the block runs."""
        self._call = call
        try:
            yield
        finally:
            self._call = None

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal; the second and later ones must not disturb the tidying up."""
        if self.requested:
            return
        self.requested = True
        if self._call is None:
            raise Stopped
        self._call()


@contextlib.contextmanager
def stopping() -> Iterator[Stopping]:
    """Handle the signals while the block runs, and leave by `Stopped` quietly."""
    state = Stopping()
    before = {}
    for number in SIGNALS:
        # Under nohup a closed terminal is to be ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, state.on_signal)
    try:
        with contextlib.suppress(Stopped):
            yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
