"""The outbox's status and warnings, for ``status``, ``prune``, ``doctor`` and the system checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve import conf
from pgobserve.errors import ConfigurationError
from pgobserve.triggers.server import outbox_storage, schema_owners

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.triggers.server.outbox_storage import StorageStatus

#: A year.
MAX_RETENTION = 366 * 24 * 3600

#: Several chunks for each of the three slots.
MIN_BYTES = 10_000_000

#: The outbox rotates after half the retention. After so many retentions, no process rotates it.
OVERDUE = 2.0

#: The share of its limit that causes a warning.
NEARLY_FULL = 0.8


def check_settings() -> None:
    """Raise ``ConfigurationError`` if a number in the settings of the outbox is out of range."""
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


def read_status(connection: BaseDatabaseWrapper) -> StorageStatus | None:
    """Return the outbox's status; None if it is missing, damaged, unreadable or another role's."""
    namespace = conf.namespace(connection.alias)
    if schema_owners.foreign_objects(connection, namespace):
        return None  # What looks like a table may be another role's view, which runs its code.
    if outbox_storage.damage(connection, namespace) or not outbox_storage.is_readable(
        connection, namespace
    ):
        return None
    return outbox_storage.status(connection, namespace)


def as_json(status: StorageStatus) -> dict[str, object]:
    """Return a status for JSON output."""
    return {
        "bytes": status.size,
        "max_bytes": status.max_bytes,
        "rotated_at": status.rotated_at.isoformat(),
        "full": status.is_full,
        "has_lost": status.has_lost,
        "warnings": warnings(status),
    }


def warnings(status: StorageStatus) -> list[str]:
    """Return a sentence for each problem, ``what: remedy``."""
    retention = conf.get().OUTBOX_RETENTION
    found = []
    if status.is_full:
        found.append(
            f"The outbox is full ({status.max_bytes:,} bytes), so triggers write nothing to it and "
            "its readers start again: raise PGOBSERVE['OUTBOX_MAX_BYTES'] or lower "
            "OUTBOX_RETENTION, and run manage.py pgobserve prune"
        )
    elif status.size > status.max_bytes * NEARLY_FULL:
        found.append(
            f"The outbox takes {status.size:,} of {status.max_bytes:,} bytes: raise "
            "PGOBSERVE['OUTBOX_MAX_BYTES'] or lower OUTBOX_RETENTION"
        )
    if status.idle.total_seconds() > retention * OVERDUE:
        found.append(
            f"The outbox has not rotated since {status.rotated_at:%Y-%m-%d %H:%M} UTC: no server "
            "process reads it. Start one, or run manage.py pgobserve prune from cron"
        )
    return found
