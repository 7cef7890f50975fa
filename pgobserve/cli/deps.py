"""``deps``: which tables the rows of each consumer depend on, as a table, as JSON or as a Graphviz graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import router
from django.utils.module_loading import import_string

from pgobserve.errors import ConfigurationError, TriggerError
from pgobserve.install import consumer_registry, survey, targets, unseen_tables
from pgobserve.install.unseen_tables import path_of
from pgobserve.triggers.registry import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from django.db.models import Model

    from pgobserve.cli.console import Console
    from pgobserve.dependencies.gathering import Dependencies
    from pgobserve.sql.relation_path import RelationPath
    from pgobserve.triggers.server.drift import Status

    #: Dotted name, models, and the dependencies of their rows.
    Consumer = tuple[str, Iterable[type[Model]], Dependencies]

HEADING = ("PATH", "MODEL", "TABLE", "FOUND BACK", "TRIGGERS")

HINT = (
    "Name the other tables that they read in observe_related of the class, as paths from its model "
    '(["author.publisher"]) or models (["shop.Price"]).'
)


@dataclass(frozen=True, slots=True)
class ConsumerDependencies:
    """A consumer's dotted name, the models of its subscriptions, and what their rows depend on."""

    consumer: str
    models: tuple[type[Model], ...]
    found: Dependencies


def run(
    console: Console, consumer: str | None, *, database: str, as_json: bool, as_dot: bool
) -> None:
    """Print the dependencies of consumers as a table, as JSON or as a graph."""
    subjects = list(_subjects(consumer))
    if as_dot:
        console.write(graph((each.consumer, each.models, each.found) for each in subjects))
        return
    statuses = _statuses(console, subjects, database)
    if as_json:
        console.json([_as_json(each, statuses) for each in subjects])
        return
    for number, subject in enumerate(subjects):
        if number:
            console.write("")
        _print(console, subject, statuses)
    if not subjects:
        console.write("No consumer has subscriptions to rows.")
    elif any(each.found.unresolved for each in subjects):
        console.write(f"\n{HINT}")


def _subjects(name: str | None) -> Iterator[ConsumerDependencies]:
    if not targets.import_consumers() and name is None:
        raise ConfigurationError(
            "ASGI_APPLICATION is not set, so no consumer is known. Set it, or name a consumer by its "
            "dotted path."
        )
    classes: Sequence[Any] = consumer_registry.consumers() if name is None else _named(name)
    for cls in classes:
        found = cls.observed_dependencies()
        models = _own(cls.observed_models(), found)
        if models or found or name is not None:
            yield ConsumerDependencies(_dotted(cls), models, found)


def _own(models: Iterable[type[Model]], found: Dependencies) -> tuple[type[Model], ...]:
    """Return the models of the rows themselves, without those at the end of paths."""
    roots = {path.root for path in found.paths}
    linked = {path.joins[-1].model for path in found.paths} - roots
    return tuple(each for each in dict.fromkeys(models) if each not in linked)


def _named(name: str) -> list[Any]:
    known = consumer_registry.consumers()
    found = [each for each in known if name in (_dotted(each), each.__name__)]
    if found:
        return found
    try:
        imported = import_string(name)
    except ImportError:
        imported = None
    if hasattr(imported, "observed_dependencies"):
        return [imported]
    raise ConfigurationError(
        f"There is no consumer {name} that clients may subscribe with. There is: "
        f"{', '.join(_dotted(each) for each in known if each.observed_models()) or 'none'}."  # type: ignore[attr-defined]
    )


def _dotted(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _statuses(
    console: Console, subjects: Sequence[ConsumerDependencies], database: str
) -> Mapping[str, Status] | None:
    """Return the tables' statuses by model label; None if the database can't be reached."""
    models = {canonical(model) for subject in subjects for model in _models(subject)}
    labels = [each._meta.label for each in models if router.allow_migrate_model(database, each)]
    try:
        connection = targets.connect(database)
        statuses = survey.statuses(connection, labels) if labels else []
    except TriggerError as error:
        console.err.write(f"The state of the triggers is unknown. {error}")
        return None
    return {status.title: status for _, status in statuses}


def _models(subject: ConsumerDependencies) -> Iterator[type[Model]]:
    yield from subject.models
    yield from subject.found.full_refresh
    for path in subject.found.paths:
        yield path.joins[-1].model


def _state(model: type[Model], statuses: Mapping[str, Status] | None) -> str | None:
    if statuses is None:
        return None
    status = statuses.get(canonical(model)._meta.label)
    return "not in this database" if status is None else str(status.state)


def _as_json(
    subject: ConsumerDependencies, statuses: Mapping[str, Status] | None
) -> dict[str, object]:
    def table(model: type[Model]) -> dict[str, object]:
        state = _state(model, statuses)
        return {"label": model._meta.label, "table": model._meta.db_table, "triggers": state}

    return {
        "consumer": subject.consumer,
        "models": [table(model) for model in subject.models],
        "links": [
            {"path": path_of(each), **table(each.joins[-1].model), "column": each.column}
            for each in subject.found.paths
        ],
        "wide": [table(model) for model in subject.found.full_refresh],
        "unseen": [
            *subject.found.unresolved,
            *unseen_tables.of_consumer(subject.consumer, subject.found),
        ],
    }


def _print(
    console: Console, subject: ConsumerDependencies, statuses: Mapping[str, Status] | None
) -> None:
    console.write(subject.consumer, "MIGRATE_HEADING")
    rows = [
        *(("-", model, "by key") for model in subject.models),
        *((path_of(path), path.joins[-1].model, _resolved(path)) for path in subject.found.paths),
        *(("-", model, "reads all again") for model in subject.found.full_refresh),
    ]
    states = [_state(model, statuses) for _, model, _ in rows]
    cells = [
        (path, model._meta.label, model._meta.db_table, resolved, state or "?")
        for (path, model, resolved), state in zip(rows, states, strict=True)
    ]
    if cells:
        styles = ["" if each is None else "SUCCESS" if each == "ok" else "ERROR" for each in states]
        console.table([HEADING, *cells], styles)
    unseen = unseen_tables.of_consumer(subject.consumer, subject.found)
    for sentence in (*subject.found.unresolved, *unseen):
        console.write(f"Not seen: {sentence}", "WARNING")


def _resolved(path: RelationPath) -> str:
    return "by key" if path.column is None else f"by {path.column} in the change"


def graph(consumers: Iterable[Consumer]) -> str:
    """Return a graph of joins; a dashed arrow leads to a table whose changes make feeds read all again."""
    nodes: dict[str, None] = {}
    edges: dict[str, None] = {}
    for name, models, found in consumers:
        nodes[f"{_quoted(name)} [shape=ellipse]"] = None
        for model in models:
            edges[f"{_quoted(name)} -> {_node(model)}"] = None
        for path in found.paths:
            edges |= dict.fromkeys(_arrows(path))
        for model in found.full_refresh:
            edges[f'{_quoted(name)} -> {_node(model)} [style=dashed, label="reads all"]'] = None
    lines = [*sorted(nodes), *sorted(edges)]
    body = "".join(f"  {line};\n" for line in lines)
    return f"digraph pgobserve {{\n  rankdir=LR;\n  node [shape=box];\n{body}}}"


def _arrows(path: RelationPath) -> Iterable[str]:
    model = path.root
    for join in path.joins:
        on = ", ".join(f"{source.column} = {target.column}" for source, target in join.on)
        yield f"{_node(model)} -> {_node(join.model)} [label={_quoted(on)}]"
        model = join.model


def _node(model: type[Model]) -> str:
    return _quoted(model._meta.label)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
