"""Say what the server refused, in one sentence, and what to do."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError
from psycopg import errors

from pgobserve.errors import TriggerError

if TYPE_CHECKING:
    from collections.abc import Iterator


#: Before what our own SQL says.
OURS = "pgobserve: "


@contextlib.contextmanager
def explained(title: str, lock_timeout: float) -> Iterator[None]:
    """
    Turn the database's errors within the block into ``TriggerError``, the cause kept.

    Args:
        title: Label of the model that is worked on.
        lock_timeout: Seconds that a lock was waited for.
    """
    try:
        yield
    except DatabaseError as error:
        raise TriggerError(explain(error, title, lock_timeout)) from error


def refusal(error: Exception) -> str:
    """Return the sentence for an error of the database while nothing was being changed."""
    return f"The database refused: {_primary(error.__cause__ or error)}."


def explain(error: Exception, title: str, lock_timeout: float) -> str:
    """Return the sentence for an error of the database."""
    cause = error.__cause__ or error
    told = _primary(cause)
    if isinstance(cause, errors.LockNotAvailable):
        return (
            f"The table of {title} could not be locked within {lock_timeout:g} s: a transaction "
            "that uses it is still open (see pg_stat_activity). Nothing was changed there; run "
            "the command again, or give it longer with --lock-timeout."
        )
    if isinstance(cause, errors.ObjectNotInPrerequisiteState) and told.startswith(OURS):
        return f"{told.removeprefix(OURS)}. {_hint(cause)}"
    if isinstance(cause, errors.InsufficientPrivilege):
        return (
            f"The database role may not do this for {title} ({told}). Run the command as the "
            "owner of the table, or hand them the output of manage.py pgobserve sql."
        )
    if isinstance(cause, errors.ReadOnlySqlTransaction):
        return (
            f"The server takes no changes, so nothing was done for {title} ({told}). Name the "
            "primary with --database, or end default_transaction_read_only."
        )
    if isinstance(cause, errors.FeatureNotSupported):
        return f"{title} can't be observed: {told}. PostgreSQL 14 or newer is needed."
    return f"The database refused to work on {title}: {told}."


def _hint(error: BaseException) -> str:
    return getattr(getattr(error, "diag", None), "message_hint", None) or ""


def _primary(error: BaseException) -> str:
    diagnostics = getattr(error, "diag", None)
    text = getattr(diagnostics, "message_primary", None) or str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
