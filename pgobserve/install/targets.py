"""Which tables a sub-command is about: labels, consumers and settings become registrations."""

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
from pgobserve.install.consumer_registry import evented_models, observed_models, observed_routes
from pgobserve.triggers import registry

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.trigger_values import Comment


def connect(using: str) -> BaseDatabaseWrapper:
    """
    Return the connection of an alias, connected.

    Raises:
        ConfigurationError: There is no such alias, or it is not PostgreSQL.
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
    Return the registrations of the labelled models, or of all that the project observes.

    Args:
        labels: Labels of models; none means all that consumers and settings name.
        using: Alias of the database; models that a router keeps out of it are left out.
        always: Overrides the registrations' ``always``.

    Raises:
        ConfigurationError: A label is unknown or not in this database, or nothing is observed.
    """
    models = [registry.find(label) for label in labels] or _observed()
    if labels:
        # Of a labelled model, too, they say what must be told. It may be they that are broken.
        with suppress(ConfigurationError):
            import_consumers()
    built = _build(models, observed_routes(), using)
    kept = [each for each in built if router.allow_migrate_model(using, each.model)]
    if labels and len(kept) < len(built):
        strangers = ", ".join(each.title for each in built if each not in kept)
        raise ConfigurationError(
            f"The database routers keep {strangers} out of the database {using!r}. "
            "Name the right one with --database."
        )
    return kept if always is None else [replace(each, always=always) for each in kept]


def recorded(comment: Comment, using: str) -> Registration | None:
    """
    Return the registration that a comment on a trigger records; None if its model is gone.

    Args:
        comment: Of a trigger in this project's namespace.
        using: Alias of the database.
    """
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
    """
    Return what ``PGOBSERVE["MODELS"]`` alone asks for.

    Raises:
        ConfigurationError: A label or an option there is wrong.
    """
    return _build(_listed(), {}, using)


def _build(
    models: Iterable[type[Model]],
    routes: Mapping[type[Model], Collection[str]],
    using: str,
) -> list[Registration]:
    """Return registrations; what model observers observe goes to the outbox, unless it is said."""
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
    said = {
        registry.canonical(registry.find(k)) for k, each in options.items() if "transport" in each
    }
    evented = {*evented_models()} - said
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
            "Nothing says what to observe: ASGI_APPLICATION is not set. Set it, list labels in "
            "PGOBSERVE['MODELS'], or name them in the command."
        )
    return [*observed_models(), *listed]


def import_consumers() -> bool:
    """
    Import the project's consumers; return False if the project has none.

    Raises:
        ConfigurationError: They can't be imported.
    """
    try:
        get_default_application()
    except ImproperlyConfigured as error:
        if str(error).startswith("Cannot find ASGI_APPLICATION setting"):
            return False
        reason: BaseException = error.__context__ or error
        raise _not_imported(reason) from error
    except Exception as error:
        raise _not_imported(error) from error
    return True


def only_settings() -> str | None:
    """Return the sentence that only settings say what is observed, if that is so."""
    if import_consumers():
        return None
    return "ASGI_APPLICATION is not set, so only PGOBSERVE['MODELS'] says what is observed."


def _not_imported(reason: BaseException) -> ConfigurationError:
    return ConfigurationError(
        "The consumers that say what to observe can't be imported: ASGI_APPLICATION fails with "
        f"{type(reason).__name__}: {reason}. Mend it, or name labels in the command."
    )
