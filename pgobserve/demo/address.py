"""The page's address: a socket bound before anything else is started."""

from __future__ import annotations

import errno
import socket

HOST = "127.0.0.1"
DEFAULT_PORT = 8000

#: How many ports after the default are tried before giving up.
TRIES = 10


def claim(port: int | None) -> socket.socket:
    """
    Return a listening socket on loopback.

    Args:
        port: The port that the user asked for, 0 for any; None for the default, or one of the
            next ones if it is taken.

    Raises:
        RuntimeError: The port is taken, or may not be used; the message says what to do.
    """
    if port is not None:
        return _listen(port)
    for candidate in range(DEFAULT_PORT, DEFAULT_PORT + TRIES):
        try:
            return _listen(candidate)
        except RuntimeError:
            continue
    raise RuntimeError(
        f"The ports {DEFAULT_PORT} to {DEFAULT_PORT + TRIES - 1} of {HOST} are all taken. "
        "Choose another with --port."
    )


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Without it a port is refused for a minute after a demo that had visitors.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(100)
    except OSError as error:
        listener.close()
        taken = error.errno == errno.EADDRINUSE
        reason = "is taken by another program" if taken else f"can't be used ({error.strerror})"
        raise RuntimeError(
            f"Port {port} of {HOST} {reason}. Choose another: python -m pgobserve demo --port 8010"
        ) from error
    return listener
