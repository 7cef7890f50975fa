"""How the outbox stands, for those who look: ``status``, ``prune`` and the system checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve import conf
from pgobserve.errors import ConfigurationError
from pgobserve.triggers import outbox_storage
from pgobserve.triggers.server import schema_owners

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.triggers.outbox_storage import StorageStatus

#: A year.
MAX_RETENTION = 366 * 24 * 3600

#: Three slots with one chunk each would fill less.
MIN_BYTES = 10_000_000

#: It rotates after half the retention. After so many retentions nobody does it any more.
OVERDUE = 2.0

#: The share of its limit from which on it is told.
NEARLY_FULL = 0.8


def check_settings() -> None:
    """
    Check what the settings say of the outbox.

    Raises:
        ConfigurationError: A number can't be what it is.
    """
    settings = conf.get()
    retention: object = settings.OUTBOX_RETENTION
    if not isinstance(retention, (int, float)) or not 1 <= retention <= MAX_RETENTION:
        raise ConfigurationError(
            f"PGOBSERVE['OUTBOX_RETENTION'] must be seconds from 1 to {MAX_RETENTION:,}, "
            f"not {retention!r}."
        )
    size: object = settings.OUTBOX_MAX_BYTES
    if not isinstance(size, int) or not MIN_BYTES <= size < 2**63:
        raise ConfigurationError(
            f"PGOBSERVE['OUTBOX_MAX_BYTES'] must be bytes, at least {MIN_BYTES:,}, not {size!r}."
        )


def look(connection: BaseDatabaseWrapper) -> StorageStatus | None:
    """Return how the outbox stands; None if there is none, it is damaged, or not ours to see."""
    namespace = conf.namespace(connection.alias)
    if schema_owners.strangers(connection, namespace):
        return None  # What looks like a table may be another role's view, and run its code.
    if outbox_storage.broken(connection, namespace) or not outbox_storage.is_readable(
        connection, namespace
    ):
        return None
    return outbox_storage.facts(connection, namespace)


def described(facts: StorageStatus) -> dict[str, object]:
    """Return the facts as JSON has them."""
    return {
        "bytes": facts.size,
        "max_bytes": facts.max_bytes,
        "rotated_at": facts.rotated_at.isoformat(),
        "full": facts.is_full,
        "has_lost": facts.has_lost,
        "warnings": warnings(facts),
    }


def warnings(facts: StorageStatus) -> list[str]:
    """Return a sentence for each thing that somebody should see to."""
    retention = conf.get().OUTBOX_RETENTION
    found = []
    if facts.is_full:
        found.append(
            f"The outbox is full ({facts.max_bytes:,} bytes), so changes are not written to it and "
            "its readers begin again: raise PGOBSERVE['OUTBOX_MAX_BYTES'] or lower "
            "OUTBOX_RETENTION, and run manage.py pgobserve prune"
        )
    elif facts.size > facts.max_bytes * NEARLY_FULL:
        found.append(
            f"The outbox takes {facts.size:,} of {facts.max_bytes:,} bytes: raise "
            "PGOBSERVE['OUTBOX_MAX_BYTES'] or lower OUTBOX_RETENTION"
        )
    if facts.idle.total_seconds() > retention * OVERDUE:
        found.append(
            f"Nobody has rotated the outbox since {facts.rotated_at:%Y-%m-%d %H:%M} UTC: no server "
            "process reads it. Start one, or run manage.py pgobserve prune from cron"
        )
    return found
