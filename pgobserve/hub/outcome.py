"""
What a load found of a row for a client, and the frame that leads there from what the client holds.

Conflation, rows that enter a list and rows that leave it follow one rule: :func:`step`. It is applied
when a frame is sent, to what the client holds at that time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from pgobserve.hub.identity import digest_of

if TYPE_CHECKING:
    from collections.abc import Hashable

FrameAction = Literal["create", "update", "delete", "error"]

#: The client knows the row to be absent.
NOTHING: Final = b""

#: What the client holds is not known, so the current state must be sent.
UNKNOWN: Final = None

#: The client holds no copy and has already received an error for the row.
UNTOLD: Final = b"?"


@dataclass(frozen=True, slots=True)
class View:
    """
    A row as some subscribers may see it now.

    Attributes:
        body: Its JSON text; None if the row is absent for these subscribers.
        digest: Digest of the body; :data:`NOTHING` without one.
        framing: What the frame writer keeps in order to encode it once for all clients.
    """

    body: str | None
    digest: bytes
    framing: tuple[Hashable, str] | None = field(
        default=None, init=False, compare=False, repr=False
    )

    def frame_with(self, shape: Hashable, text: str) -> None:
        """Keep the text that follows the body in frames of a shape."""
        object.__setattr__(self, "framing", (shape, text))

    @classmethod
    def of(cls, body: str) -> View:
        """Return the view that shows this JSON text."""
        return cls(body, digest_of(body))

    @property
    def etag(self) -> str:
        """The etag of this view in frames, and in the request of a returning client."""
        return self.digest.hex()


ABSENT: Final = View(None, NOTHING)


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    An answer without a view: permission denied, or the serializer failed.

    Attributes:
        status: The frame's ``response_status``.
        errors: The frame's ``errors``.
        named: Whether the client may see the row, so that a frame may name it.
        hides: Whether it is unknown if the client may see the row. A client without a copy then
            receives nothing.
    """

    status: int
    errors: tuple[Any, ...]
    named: bool = False
    hides: bool = False


#: The answer for a row that could not be read; the log has the reason.
UNREAD: Final = Refusal(
    500, ("The row can't be shown: an error occurred on the server.",), hides=True
)

Outcome = View | Refusal


def step(shown: bytes | None, outcome: Outcome) -> tuple[bytes | None, FrameAction | None]:
    """
    Return the frame that leads from what was shown to an outcome.

    Args:
        shown: Digest of what the client holds; :data:`NOTHING`, :data:`UNTOLD` or :data:`UNKNOWN`.

    Returns:
        What the client holds afterwards, and the frame. None stands for no frame.
    """
    had = shown != NOTHING and shown != UNTOLD
    if isinstance(outcome, Refusal):
        if outcome.hides and shown == NOTHING:
            return shown, None
        return (UNKNOWN if had else UNTOLD), "error"
    if shown == outcome.digest:
        return shown, None
    if outcome.body is None:
        return NOTHING, ("delete" if had else None)
    return outcome.digest, ("update" if had else "create")


def without(kind: FrameAction) -> bytes | None:
    """Return what the client holds when a frame of this kind could not be sent."""
    return UNTOLD if kind == "create" else UNKNOWN
