"""Registrations: which tables are observed, and how. A table has one registration."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Field

from pgobserve.errors import ConfigurationError
from pgobserve.triggers import names
from pgobserve.triggers.bodies.route_bodies import fits_payload
from pgobserve.wire import ALONE, TRANSPORTS, WAKES, Namespace

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from django.db.models import Model

#: Lower case, because ``LISTEN`` folds the case of a channel's name and ``pg_notify`` does not.
CHANNELS = re.compile(r"[a-z_][a-z0-9_]{0,62}")

#: The options of a model in ``PGOBSERVE["MODELS"]``.
OPTIONS = ("columns", "always", "transport")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """
    An observed table, under the label of one model.

    Attributes:
        model: The concrete model.
        columns: An UPDATE is published only if it changes the key or one of these; None means any.
        always: Whether the triggers fire under ``session_replication_role = replica`` too;
            None keeps what is installed.
        transport: How changes travel, ``"notify"`` or ``"outbox"``.
        channel: The NOTIFY channel.
        wake: What wakes readers of the outbox, ``"notify"`` or ``"poll"``.
        routes: Columns whose old and new values a change carries, sorted.
        declared: For a view, the tables that all its consumers declare to follow in its place.
        read: The consumers that read a column, by column; known only where ``columns`` are given.
        namespace: Names of the trigger functions' schema and of the outbox.
        project: The project's name; empty if it has none.
    """

    model: type[Model]
    columns: tuple[str, ...] | None = None
    always: bool | None = None
    transport: str = "notify"
    channel: str = ALONE.channel
    wake: str = "notify"
    routes: tuple[str, ...] = ()
    declared: Collection[str] = field(default=(), compare=False)
    read: Mapping[str, Collection[str]] = field(default_factory=dict, compare=False)
    namespace: Namespace = ALONE
    project: str = ""

    @property
    def label(self) -> str:
        """The label in payloads, ``auth.user``."""
        return self.model._meta.label_lower

    @property
    def title(self) -> str:
        """The label for people, ``auth.User``."""
        return self.model._meta.label

    @property
    def table(self) -> str:
        """The table's name, quoted as Django quotes it."""
        return names.quote(self.model._meta.db_table)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of the primary key."""
        return tuple(names.column(f.column) for f in self.model._meta.pk_fields if f.column)

    @property
    def compared(self) -> tuple[str, ...] | None:
        """The columns that decide whether an UPDATE is published; None means all."""
        if self.columns is None:
            return None
        return tuple(dict.fromkeys([*self.columns, *self.routes]))

    @property
    def needed(self) -> frozenset[str]:
        """The columns that the triggers name, and without which they fail."""
        return frozenset({*self.key, *(self.columns or ()), *self.routes})


def find(label: str) -> type[Model]:
    """
    Return the model of a label, which may be an auto-created through model.

    Raises:
        ConfigurationError: The model does not exist, or has no table of its own.
    """
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError):
        raise ConfigurationError(
            f"There is no model {label}. Labels are written app_label.Model, e.g. auth.User."
        ) from None
    if model._meta.swapped:
        raise ConfigurationError(
            f"{label} has no table: it is swapped for {model._meta.swapped}. Name that one."
        )
    return model


def canonical(model: type[Model]) -> type[Model]:
    """
    Return the model under whose label changes of a model's table are published.

    A proxy has its concrete model. Of several models on one table, it is the first that Django
    manages.
    """
    concrete: type[Model] = model._meta.concrete_model or model
    table = names.quote(concrete._meta.db_table)
    twins = [
        other
        for other in apps.get_models(include_auto_created=True)
        if not other._meta.proxy and names.quote(other._meta.db_table) == table
    ]
    managed = [twin for twin in twins if twin._meta.managed]
    return next(iter(managed or twins), concrete)


def expand(model: type[Model]) -> tuple[type[Model], ...]:
    """Return the models whose tables hold a row of ``model``: it and its concrete parents."""
    concrete = model._meta.concrete_model or model
    models = [concrete, *concrete._meta.get_parent_list()]
    return tuple(dict.fromkeys(map(canonical, models)))


def build(
    models: Iterable[type[Model]],
    options: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    namespace: Namespace = ALONE,
    project: str = "",
    channel: str | None = None,
    transport: str = "notify",
    wake: str = "notify",
    routes: Mapping[type[Model], Collection[str]] | None = None,
) -> list[Registration]:
    """
    Return one registration for every table that the models need.

    Args:
        models: The observed models.
        options: By label the options of a model: ``columns``, ``always``, ``transport``.
        channel: The NOTIFY channel; by default the namespace's.
        transport: The transport of models whose options name none.
        routes: By model, columns of its own table whose old and new values changes carry.

    Raises:
        ConfigurationError: An option is unknown or wrong, or a route is not a column.
    """
    channel = namespace.channel if channel is None else channel
    _check(channel, wake)
    given = {canonical(find(label)): dict(each) for label, each in (options or {}).items()}
    routes_of = _routes(routes or {})
    wanted = dict.fromkeys(each for model in models for each in expand(model))
    return [
        _configured(
            Registration(
                model=model,
                namespace=namespace,
                project=project,
                channel=channel,
                transport=transport,
                wake=wake,
                routes=routes_of.get(model, ()),
            ),
            given.get(model, {}),
        )
        for model in wanted
    ]


def _check(channel: str, wake: str) -> None:
    if not CHANNELS.fullmatch(channel):
        raise ConfigurationError(
            "PGOBSERVE['CHANNEL'] must be of lower-case letters, digits and underscores, at most "
            f"63 bytes, not {channel!r}."
        )
    if wake not in WAKES:
        raise ConfigurationError(
            f"PGOBSERVE['OUTBOX_WAKE'] must be one of {', '.join(WAKES)}, not {wake!r}."
        )


def _routes(routes: Mapping[type[Model], Collection[str]]) -> dict[type[Model], tuple[str, ...]]:
    """Return the routes of each table, by its canonical model."""
    merged: dict[type[Model], set[str]] = defaultdict(set)
    for model, columns in routes.items():
        own = {
            names.column(field.column)
            for each in (model._meta.concrete_model or model, canonical(model))
            for field in each._meta.local_concrete_fields
            if field.column
        }
        wanted = {names.column(column) for column in columns}
        if unknown := sorted(wanted - own):
            raise ConfigurationError(
                f"Changes of {model._meta.label} can't carry the values of {', '.join(unknown)}: "
                "its table has no such column."
            )
        merged[canonical(model)] |= wanted
        if not fits_payload(sorted(merged[canonical(model)])):
            raise ConfigurationError(
                f"Changes of {model._meta.label} would carry the values of "
                f"{len(merged[canonical(model)])} columns, whose names alone fill a notification. "
                "Observe fewer of its relations: see observe_related."
            )
    return {model: tuple(sorted(columns)) for model, columns in merged.items()}


def _configured(registration: Registration, options: Mapping[str, Any]) -> Registration:
    title = registration.title
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ConfigurationError(
            f"PGOBSERVE['MODELS'] has no option {', '.join(unknown)} for {title}. "
            f"It knows: {', '.join(OPTIONS)}."
        )
    transport = options.get("transport", registration.transport)
    if transport not in TRANSPORTS:
        raise ConfigurationError(
            f"There is no transport {transport!r} for {title}. There is: {', '.join(TRANSPORTS)}."
        )
    always = options.get("always")
    if always not in (None, True, False):
        raise ConfigurationError(f"The option always of {title} must be True or False.")
    columns = options.get("columns")
    if columns is not None:
        columns = _columns(registration.model, columns)
    return replace(registration, columns=columns, always=always, transport=transport)


def _columns(model: type[Model], fields: object) -> tuple[str, ...]:
    """Return the columns of fields, without those in a parent's table."""
    if isinstance(fields, str) or not isinstance(fields, Iterable):
        what = "a string" if isinstance(fields, str) else type(fields).__name__
        raise ConfigurationError(
            f"The option columns of {model._meta.label} must be a list of field names, not {what}."
        )
    named = [_field(model, name) for name in fields]
    own = (field.column for field in named if field in model._meta.local_fields)
    return tuple(dict.fromkeys(names.column(column) for column in own if column))


def _field(model: type[Model], name: str) -> Field[Any, Any]:
    """Return a field that has a column."""
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        raise ConfigurationError(
            f"{model._meta.label} has no field {name}, which its option columns names."
        ) from None
    # A many-to-many field has a column name, but no column in this table.
    if field.many_to_many or not isinstance(field, Field) or field.column is None:
        raise ConfigurationError(
            f"The field {model._meta.label}.{name} has no column, so the option columns "
            "can't name it. For a many-to-many field observe the through model."
        )
    return field
