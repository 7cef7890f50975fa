"""
The ``PGOBSERVE`` setting.

Only this module and ``settings.py``, which has DCRF's own, read Django's settings. All others take
arguments.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Final

from django.conf import settings
from django.core.signals import setting_changed
from django.db import connections

from pgobserve.errors import ConfigurationError
from pgobserve.search_path import first_schema, of_options
from pgobserve.wire import NAMESPACES, Namespace

#: Bytes of a frame beside its data: the request id, the key, the etag.
FRAME_HEAD: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    The settings with their defaults.

    Attributes:
        MODELS: Labels to observe besides the models that consumers name. Either a list of labels
            or a mapping of label to options, ``{"shop.Order": {"columns": ["state"]}}``.
        TRANSPORT: How changes travel: ``"notify"``, or ``"outbox"`` for changes that must not be
            missed. ``MODELS`` can set it for one model.
        NAMESPACE: Names the schema, triggers, outbox and channel of this project in a database.
            Projects that share a database need different namespaces. By default the first schema
            of the ``search_path`` in ``DATABASES``, unless it is public.
        CHANNEL: The NOTIFY channel; lower case. By default the namespace's.
        CONNECTION: Overrides for the LISTEN connection, as psycopg keywords, by database alias:
            ``{"default": {"port": 5432}}`` bypasses a transaction-pooling proxy.
        INSTALL_ON_MIGRATE: Install the triggers after ``migrate``, test databases included.
        QUERYSET_TTL: Seconds after which a compiled ``get_queryset`` is built again.
        OUTBOX_RETENTION: Seconds that outbox rows are kept at least.
        OUTBOX_MAX_BYTES: Limit of the outbox on disk. At the limit triggers write nothing, and
            readers start again.
        OUTBOX_WAKE: ``"notify"`` wakes readers of the outbox by NOTIFY, from at most two writers at
            a time; ``"poll"`` sends nothing, and readers poll.
        MAX_SUBSCRIPTIONS: Subscriptions on one socket; more get a 429 frame.
        MAX_LIST_ROWS: Rows of one subscribed list; more get a 413 frame.
        MAX_ARGUMENT_BYTES: Bytes of JSON of all subscriptions' arguments on one socket; more get a
            429 frame.
        MAX_FRAME_BYTES: Bytes of one frame to a client; a larger row gets a 413 frame.
        IGNORED_CONTEXT_VARIABLES: Names of context variables that no hook, serializer or permission
            reads, such as a tracing library's. Sockets that differ in any other share no query.
        LOADER_STATEMENT_TIMEOUT: Seconds that a statement of the loader may run; 0 for no limit.
        LOADER_THREADS: Threads per alias that read rows, each with a database connection.
        HOOK_TIMEOUT: Seconds that a hook may run. Its subscription then receives an error, and a
            new thread replaces the one that the hook holds.
    """

    MODELS: Sequence[str] | Mapping[str, Mapping[str, Any]] = ()
    TRANSPORT: str = "notify"
    NAMESPACE: str | None = None
    CHANNEL: str | None = None
    CONNECTION: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    INSTALL_ON_MIGRATE: bool = False
    QUERYSET_TTL: float = 60.0
    OUTBOX_RETENTION: float = 3600.0
    OUTBOX_MAX_BYTES: int = 4 * 1024**3
    OUTBOX_WAKE: str = "notify"
    MAX_SUBSCRIPTIONS: int = 1000
    MAX_LIST_ROWS: int = 10_000
    MAX_ARGUMENT_BYTES: int = 262_144
    MAX_FRAME_BYTES: int = 1_000_000
    IGNORED_CONTEXT_VARIABLES: Sequence[str] = ()
    LOADER_STATEMENT_TIMEOUT: float = 10.0
    LOADER_THREADS: int = 2
    HOOK_TIMEOUT: float = 30.0


KNOWN = tuple(f.name for f in fields(Settings))


@cache
def get() -> Settings:
    """Return the settings of this project; raise ``ConfigurationError`` for an unknown key or value."""
    given = getattr(settings, "PGOBSERVE", {})
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"The setting PGOBSERVE must be a dictionary, not {type(given).__name__}."
        )
    unknown = sorted(set(given) - set(KNOWN))
    if unknown:
        raise ConfigurationError(
            f"PGOBSERVE has no setting {', '.join(unknown)}. It knows: {', '.join(KNOWN)}."
        )
    if given.get("OUTBOX_WAKE") == "gated":
        raise ConfigurationError("PGOBSERVE['OUTBOX_WAKE'] = 'gated' is now called 'notify'.")
    return Settings(**given)


def longest_row() -> int:
    """Return how many bytes of JSON a row may have to fit into any frame."""
    limit = get().MAX_FRAME_BYTES
    return max(limit - FRAME_HEAD, limit // 2)


def namespace(alias: str) -> Namespace:
    """
    Return the namespace of this project in a database.

    It depends on settings alone, never on the ``search_path`` of a session or role: every process
    of the project must compute the same.
    """
    given = get().NAMESPACE
    try:
        return Namespace(_derived(alias) if given is None else given)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"PGOBSERVE['NAMESPACE']: {error}.") from None


def _derived(alias: str) -> str:
    """Return the default namespace: the schema of the project's tables, by the settings."""
    options = connections.databases.get(alias, {}).get("OPTIONS", {}).get("options", "")
    schema = first_schema(of_options(str(options)))
    if NAMESPACES.fullmatch(schema):
        return schema
    digest = hashlib.sha256(schema.encode()).hexdigest()[:8]
    return re.sub("[^a-z0-9_]", "_", schema.lower())[:36] + f"_{digest}"


def project() -> str:
    """Return the name that distinguishes this project from others in a database."""
    return str(getattr(settings, "ROOT_URLCONF", ""))


def channel(alias: str) -> str:
    """Return the NOTIFY channel of this project in a database."""
    given = get().CHANNEL
    return namespace(alias).channel if given is None else given


def transports() -> frozenset[str]:
    """Return the transports in ``TRANSPORT`` and ``MODELS``."""
    settings = get()
    if not isinstance(settings.MODELS, Mapping):
        return frozenset([settings.TRANSPORT])
    of_models = (each.get("transport") for each in settings.MODELS.values())
    return frozenset([settings.TRANSPORT, *filter(None, of_models)])


def _forget(*, setting: str, **_: object) -> None:
    if setting == "PGOBSERVE":
        get.cache_clear()


setting_changed.connect(_forget, dispatch_uid="pgobserve.conf")
