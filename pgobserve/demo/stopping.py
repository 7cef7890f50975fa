"""Ends the demo in order after Ctrl-C, SIGTERM or a closed terminal."""

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
    """A signal ends the demo; this is no error."""


class Stopping:
    """
    The present effect of a signal: it raises `Stopped`, or calls the function given to `instead`.

    Attributes:
        requested: Whether a signal has arrived.
    """

    def __init__(self) -> None:
        self.requested = False
        self._call: Callable[[], object] | None = None

    @contextlib.contextmanager
    def instead(self, call: Callable[[], object]) -> Iterator[None]:
        """Call a function for a signal during the block."""
        self._call = call
        try:
            yield
        finally:
            self._call = None

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Handle the first signal; later ones must not interrupt the clean-up."""
        if self.requested:
            return
        self.requested = True
        if self._call is None:
            raise Stopped
        self._call()


@contextlib.contextmanager
def stopping() -> Iterator[Stopping]:
    """Handle signals during the block, and suppress `Stopped`."""
    state = Stopping()
    before = {}
    for number in SIGNALS:
        # nohup ignores a closed terminal, and so must the demo.
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, state.on_signal)
    try:
        with contextlib.suppress(Stopped):
            yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
