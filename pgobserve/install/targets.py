"""From labels, consumers and settings to registrations, for commands and checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from channels.routing import get_default_application
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db import Error as DatabaseError

from pgobserve import conf
from pgobserve.errors import ConfigurationError, TriggerError
from pgobserve.install.consumer_registry import (
    declared_tables,
    evented_models,
    observed_models,
    observed_routes,
    read_columns,
)
from pgobserve.triggers import registry

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.trigger_values import Comment


def connect(using: str) -> BaseDatabaseWrapper:
    """
    Return the open connection of an alias.

    Raises:
        ConfigurationError: The alias does not exist, or is not PostgreSQL.
        TriggerError: The server can't be reached.
    """
    if using not in connections:
        raise ConfigurationError(
            f"There is no database alias {using!r}. DATABASES has: {', '.join(connections)}."
        )
    connection = connections[using]
    if connection.vendor != "postgresql":
        raise ConfigurationError(
            f"The database {using!r} is {connection.display_name}; pgobserve needs PostgreSQL. "
            "Name another alias with --database."
        )
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        reason = str(error).strip().splitlines()
        raise TriggerError(
            f"The database {using!r} can't be reached: {reason[0] if reason else 'no reason given'}"
        ) from error
    return connection


def registrations(
    labels: Sequence[str] = (), *, using: str = DEFAULT_DB_ALIAS, always: bool | None = None
) -> list[Registration]:
    """
    Return the registrations of models.

    Args:
        labels: Labels of models; none means all that consumers and settings name.
        using: Alias of the database. Models that routers keep out of it are left out.
        always: Overrides the registrations' ``always``.

    Raises:
        ConfigurationError: A label is unknown or not in this database, or nothing is observed.
    """
    models = [registry.find(label) for label in labels] or _observed()
    if labels:
        # Consumers add routes to a labelled model too. The command must work if they are broken.
        with suppress(ConfigurationError):
            import_consumers()
    built = _build(models, observed_routes(), using)
    kept = [each for each in built if router.allow_migrate_model(using, each.model)]
    if labels and len(kept) < len(built):
        excluded = ", ".join(each.title for each in built if each not in kept)
        raise ConfigurationError(
            f"The database routers keep {excluded} out of the database {using!r}. "
            "Name the right one with --database."
        )
    return kept if always is None else [replace(each, always=always) for each in kept]


def recorded(comment: Comment, using: str) -> Registration | None:
    """Return the registration that a trigger's comment records; None if its model is gone."""
    try:
        model = apps.get_model(comment.label)
    except (LookupError, ValueError):
        return None
    return registry.Registration(
        model=model,
        namespace=conf.namespace(using),
        project=conf.project(),
        columns=comment.columns,
        transport=comment.transport,
        channel=comment.channel,
        wake=comment.wake,
        routes=comment.routes,
    )


def named(using: str = DEFAULT_DB_ALIAS) -> list[Registration]:
    """Return the registrations of ``PGOBSERVE["MODELS"]`` alone; ``ConfigurationError`` if it is wrong."""
    return _build(_listed(), {}, using)


def _build(
    models: Iterable[type[Model]], routes: Mapping[type[Model], Collection[str]], using: str
) -> list[Registration]:
    """Return registrations. A model with observers uses the outbox unless options name a transport."""
    settings, options = conf.get(), _options()
    built = registry.build(
        models,
        options,
        namespace=conf.namespace(using),
        project=conf.project(),
        channel=conf.channel(using),
        transport=settings.TRANSPORT,
        wake=settings.OUTBOX_WAKE,
        routes=routes,
    )
    explicit = {
        registry.canonical(registry.find(k)) for k, each in options.items() if "transport" in each
    }
    evented = {*evented_models()} - explicit
    if any(not each.model._meta.managed for each in built):
        found = declared_tables()
        built = [replace(each, declared=found.get(each.model, ())) for each in built]
    if any(each.columns is not None for each in built):
        read = read_columns()
        built = [replace(each, read=read.get(each.model, {})) for each in built]
    return [replace(e, transport="outbox") if e.model in evented else e for e in built]


def _listed() -> list[type[Model]]:
    labels: object = conf.get().MODELS
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise ConfigurationError(
            "PGOBSERVE['MODELS'] must be a list of labels or a dictionary of options by label, "
            f"not {labels!r}."
        )
    return [registry.find(label) for label in labels]


def _options() -> Mapping[str, Mapping[str, Any]]:
    models = conf.get().MODELS
    if not isinstance(models, Mapping):
        return {}
    for label, options in models.items():
        if not isinstance(options, Mapping):
            raise ConfigurationError(
                f"The options of {label} must be a dictionary, not {options!r}."
            )
    return models


def _observed() -> list[type[Model]]:
    """Return the models of the consumers that ``ASGI_APPLICATION`` imports, and of ``MODELS``."""
    listed = _listed()
    if not import_consumers() and not listed:
        raise ConfigurationError(
            "ASGI_APPLICATION is not set, so no consumer names models. Set it, list labels in "
            "PGOBSERVE['MODELS'], or name them in the command."
        )
    return [*observed_models(), *listed]


def import_consumers() -> bool:
    """
    Import the project's consumers; return False without ``ASGI_APPLICATION``.

    Raises ``ConfigurationError`` if the import fails.
    """
    try:
        get_default_application()
    except Exception as error:
        reason: BaseException = error
        if isinstance(error, ImproperlyConfigured):
            if str(error).startswith("Cannot find ASGI_APPLICATION setting"):
                return False
            reason = error.__context__ or error
        raise ConfigurationError(
            "The consumers can't be imported: ASGI_APPLICATION fails with "
            f"{type(reason).__name__}: {reason}. Fix it, or name labels in the command."
        ) from error
    return True


def only_settings() -> str | None:
    """Return a sentence if only settings name observed models, else None."""
    if import_consumers():
        return None
    return "ASGI_APPLICATION is not set, so only models of PGOBSERVE['MODELS'] are observed."
