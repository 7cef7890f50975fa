"""One sentence for each error of the server: what it refused, and the remedy."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError
from psycopg import errors

from pgobserve.errors import TriggerError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Prefix of errors that our own SQL raises.
OURS = "pgobserve: "


@contextlib.contextmanager
def explained(title: str, lock_timeout: float) -> Iterator[None]:
    """Raise database errors of the block as ``TriggerError``, with their cause."""
    try:
        yield
    except DatabaseError as error:
        raise TriggerError(explain(error, title, lock_timeout)) from error


def refusal(error: Exception) -> str:
    """Return the sentence for a database error of a read."""
    return f"The database refused: {_primary(error.__cause__ or error)}."


def explain(error: Exception, title: str, lock_timeout: float) -> str:
    """Return the sentence for a database error of an installation."""
    cause = error.__cause__ or error
    message = _primary(cause)
    if isinstance(cause, errors.LockNotAvailable):
        return (
            f"The table of {title} could not be locked within {lock_timeout:g} s: a transaction "
            "that uses it is still open (see pg_stat_activity). Nothing was changed there; run "
            "the command again, or give it longer with --lock-timeout."
        )
    if isinstance(cause, errors.ObjectNotInPrerequisiteState) and message.startswith(OURS):
        return f"{message.removeprefix(OURS)}. {_hint(cause)}"
    if isinstance(cause, errors.InsufficientPrivilege):
        return (
            f"The database role may not do this for {title} ({message}). Run the command as the "
            "owner of the table, or hand them the output of manage.py pgobserve sql."
        )
    if isinstance(cause, errors.ReadOnlySqlTransaction):
        return (
            f"The server takes no changes, so nothing was done for {title} ({message}). Name the "
            "primary with --database, or end default_transaction_read_only."
        )
    if isinstance(cause, errors.FeatureNotSupported):
        return f"{title} can't be observed: {message}. PostgreSQL 14 or newer is needed."
    return f"The database refused to work on {title}: {message}."


def _hint(error: BaseException) -> str:
    return getattr(getattr(error, "diag", None), "message_hint", None) or ""


def _primary(error: BaseException) -> str:
    diagnostics = getattr(error, "diag", None)
    text = getattr(diagnostics, "message_primary", None) or str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
