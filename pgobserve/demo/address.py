"""The port of the page, bound before anything else starts."""

from __future__ import annotations

import errno
import socket

HOST = "127.0.0.1"
DEFAULT_PORT = 8000

#: The number of ports to try.
TRIES = 10


def claim(port: int | None) -> socket.socket:
    """
    Return a listening socket on loopback.

    Args:
        port: The port, 0 for any; None for the default, or one of the next if it is taken.

    Raises:
        RuntimeError: The port is taken or unusable; the message contains the remedy.
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
        # Otherwise a demo that had visitors blocks the port for a minute.
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
