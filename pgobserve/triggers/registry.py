"""Which tables are observed, and how: from models to registrations, one for each table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Field, GeneratedField

from pgobserve.errors import ConfigurationError
from pgobserve.triggers import names
from pgobserve.triggers.route_bodies import fit
from pgobserve.wire import ALONE, TRANSPORTS, WAKES, Namespace

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from django.db.models import Model

#: ``LISTEN`` folds the case of a channel's name and ``pg_notify`` does not.
CHANNELS = re.compile(r"[a-z_][a-z0-9_]{0,62}")

#: What ``PGOBSERVE["MODELS"]`` may say about a model.
OPTIONS = ("columns", "always", "transport")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """
    A table whose changes are to be told, under the label of one model.

    Attributes:
        model: The concrete model.
        columns: Only an UPDATE that changes one of these columns (or the key) is told;
            None means all columns.
        always: Whether the triggers fire under ``session_replication_role = replica`` too;
            None means: as they are installed now.
        transport: How changes travel, ``"notify"`` or ``"outbox"``.
        channel: The NOTIFY channel.
        wake: How readers learn of rows in the outbox, ``"notify"`` or ``"poll"``.
        routes: Columns of which a change tells the old and new values, sorted.
        namespace: Where the trigger functions and the outbox are.
        project: What the project is called beside others; empty if it has no name.
    """

    model: type[Model]
    columns: tuple[str, ...] | None = None
    always: bool | None = None
    transport: str = "notify"
    channel: str = ALONE.channel
    wake: str = "notify"
    routes: tuple[str, ...] = ()
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
    def told(self) -> tuple[str, ...] | None:
        """The columns that an UPDATE must change one of to be told; None means any."""
        if self.columns is None:
            return None
        return tuple(dict.fromkeys([*self.columns, *self.routes]))

    @property
    def needed(self) -> frozenset[str]:
        """The columns that the triggers name: without one of them they fit no more."""
        return frozenset({*self.key, *(self.columns or ()), *self.routes})


def find(label: str) -> type[Model]:
    """
    Return the model of a label, auto-created through models included.

    Raises:
        ConfigurationError: There is no such model, or it has no table of its own.
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
    Return the model under whose label changes of a model's table are told.

    That is the concrete model of a proxy and, where several models share one table, the first
    that Django manages.
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
    """Return the models whose tables hold a row of ``model``: itself and its concrete parents."""
    concrete = model._meta.concrete_model or model
    found = [concrete, *concrete._meta.get_parent_list()]
    return tuple(dict.fromkeys(canonical(each) for each in found))


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
        models: What is observed.
        options: What the project says about models, by label: ``columns``, ``always``,
            ``transport``.
        namespace: Where the trigger functions and the outbox are.
        project: What the project is called beside others.
        channel: The NOTIFY channel; by default the namespace's.
        transport: How changes travel where the options do not say.
        wake: How readers learn of rows in the outbox.
        routes: By model the columns of its own table whose old and new values must be told.

    Raises:
        ConfigurationError: An option is unknown, or names a field that is none; or a route is no
            column.
    """
    channel = namespace.channel if channel is None else channel
    if not CHANNELS.fullmatch(channel):
        raise ConfigurationError(
            "PGOBSERVE['CHANNEL'] must be of lower-case letters, digits and underscores, at most "
            f"63 bytes, not {channel!r}."
        )
    if wake not in WAKES:
        raise ConfigurationError(
            f"PGOBSERVE['OUTBOX_WAKE'] must be one of {', '.join(WAKES)}, not {wake!r}."
        )
    given = {canonical(find(label)): dict(each) for label, each in (options or {}).items()}
    led = _routes(routes or {})
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
                routes=led.get(model, ()),
            ),
            given.get(model, {}),
        )
        for model in wanted
    ]


def _routes(
    routes: Mapping[type[Model], Collection[str]],
) -> dict[type[Model], tuple[str, ...]]:
    """Return the routes of each table, by the model that it is told under."""
    found: dict[type[Model], set[str]] = defaultdict(set)
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
                f"The values of {', '.join(unknown)} can't be told by changes of "
                f"{model._meta.label}: its table has no such column."
            )
        found[canonical(model)] |= wanted
        if not fit(sorted(found[canonical(model)])):
            raise ConfigurationError(
                f"The values of {len(found[canonical(model)])} columns of {model._meta.label} are to "
                "be told, and their names alone would fill a notification. Watch fewer relations of "
                "it: see observe_related."
            )
    return {model: tuple(sorted(columns)) for model, columns in found.items()}


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


def _columns(model: type[Model], fields: object) -> tuple[str, ...] | None:
    """Return the columns of this table behind names of fields; a parent's are in its own table."""
    if isinstance(fields, str) or not isinstance(fields, Iterable):
        what = "a string" if isinstance(fields, str) else type(fields).__name__
        raise ConfigurationError(
            f"The option columns of {model._meta.label} must be a list of field names, not {what}."
        )
    found = [_field(model, name) for name in fields]
    if any(
        isinstance(field, GeneratedField) and not getattr(field, "db_persist", True)
        for field in found
    ):
        # Transition tables do not have virtual columns: compare all that they may be made of.
        return None
    own = (field.column for field in found if field in model._meta.local_fields)
    return tuple(dict.fromkeys(names.column(column) for column in own if column))


def _field(model: type[Model], name: str) -> Field[Any, Any]:
    """Return a field that has a column."""
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        raise ConfigurationError(
            f"{model._meta.label} has no field {name}, which its option columns names."
        ) from None
    # A many-to-many field has the name of a column, but none in the table.
    if field.many_to_many or not isinstance(field, Field) or field.column is None:
        raise ConfigurationError(
            f"The field {model._meta.label}.{name} has no column, so the option columns "
            "can't name it. For a many-to-many field observe the through model."
        )
    return field
