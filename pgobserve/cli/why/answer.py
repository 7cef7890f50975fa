"""``pgobserve why``: which subscribers a change of a row reaches, and what prevents delivery."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from django.core.management.base import CommandError

from pgobserve.cli.console import EXIT_NOT_WELL
from pgobserve.cli.doctor import table_health
from pgobserve.cli.doctor.case import Examination
from pgobserve.cli.doctor.listening import connected
from pgobserve.cli.why import delivery_report, watched_row
from pgobserve.cli.why.delivery_report import WatcherKind
from pgobserve.errors import ConfigurationError
from pgobserve.install import targets
from pgobserve.sql.model_tables import tables_of
from pgobserve.triggers.registry import find

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import Model

    from pgobserve.cli.console import Console
    from pgobserve.cli.why.delivery_report import TableReport, Watcher
    from pgobserve.cli.why.watched_row import RowResult


@dataclass(slots=True)
class Answer:
    """
    The answer of the command.

    Attributes:
        key: The row's key; None means any row.
        rows: Whether consumers watch the row, by watcher.
        obstacles: What prevents delivery, in sentences.
        remarks: Further sentences.
    """

    model: type[Model]
    key: str | None
    tables: list[TableReport]
    exists: bool | None = None
    rows: dict[Watcher, RowResult] = field(default_factory=dict)
    obstacles: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def watchers(self) -> list[Watcher]:
        """The watchers of all tables."""
        return [watcher for each in self.tables for watcher in each.watchers]

    @property
    def name(self) -> str:
        """The row's or the model's name for people."""
        title = self.model._meta.label
        return title if self.key is None else f"{title} {self.key}"


def run(
    console: Console, label: str, pk: str | None, *, database: str, as_json: bool, sends: bool
) -> None:
    """Print which subscribers changes of a model's rows reach; fail if something prevents it."""
    case = Examination(targets.connect(database))
    model = find(label)
    if sends and pk is None:
        raise ConfigurationError("A probe is about a row: name its key, or leave --probe out.")
    key = None if pk is None else watched_row.key_from(model, pk, case.connection)
    imported = targets.import_consumers()
    answer = Answer(model, key, delivery_report.of_model(case, label))
    if key is not None:
        answer.exists = watched_row.exists(model, key, case.connection)
        answer.rows = dict(_rows(case, answer, key)) if answer.exists else {}
    answer.obstacles = [*_obstacles(case, answer, imported=imported)]
    answer.remarks = [*_remarks(case, answer)]
    if sends and answer.exists:
        _probe(case, answer)
    if as_json:
        console.json(_as_json(answer))
    else:
        _print(console, answer)
    if answer.obstacles:
        count = len(answer.obstacles)
        raise CommandError(
            f"{count} thing{'s' if count > 1 else ''} to fix.", returncode=EXIT_NOT_WELL
        )


def _rows(case: Examination, answer: Answer, key: str) -> Iterator[tuple[Watcher, RowResult]]:
    keyed, _ = tables_of(answer.model)
    for each in answer.tables:
        # In a second parent's table the row has another key.
        if each.registration.model._meta.db_table in keyed:
            for watcher in each.watchers:
                if watched_row.alias_read_by(watcher) in (None, case.alias):
                    yield watcher, watched_row.result_of(watcher, key, case.connection)


def _obstacles(case: Examination, answer: Answer, *, imported: bool) -> Iterator[str]:
    if not answer.watchers:
        yield (
            f"No consumer watches {answer.model._meta.label}: clients can't subscribe to its rows, "
            "or to rows that are known to depend on them."
        )
        if not imported:
            yield "ASGI_APPLICATION is not set, so the consumers are not known."
    for each in answer.tables:
        yield from each.obstacles()
    yield from table_health.muted_by(case, (each.status.always for each in answer.tables))
    for watcher in dict.fromkeys(answer.watchers):
        alias = watched_row.alias_read_by(watcher)
        if alias not in (None, case.alias):
            yield f"{watcher.name} reads from the database {alias!r} and listens there."
    if answer.exists is False:
        yield f"There is no {answer.name} in the database {case.alias!r}."
    elif answer.rows and all(row.watched is False for row in answer.rows.values()):
        yield "No client can watch this row now, and no watched row depends on it."


def _remarks(case: Examination, answer: Answer) -> Iterator[str]:
    for each in answer.tables:
        yield from each.remarks()
    if any(watcher.kind is not WatcherKind.EVENTS for watcher in answer.watchers):
        yield "An UPDATE that changes nothing that a consumer shows sends no frame."
    for name, sentences in delivery_report.unresolved().items():
        if name not in {watcher.name for watcher in answer.watchers}:
            yield f"{name} may depend on it nevertheless: {' '.join(sentences)}"
    if case.feed_parameters.get("application_name") is None and not connected(case)[0]:
        yield "No feed is connected to this database now, so it has no subscribers."


def _probe(case: Examination, answer: Answer) -> None:
    """Send the trigger's notification, and add the result to the answer."""
    assert answer.key is not None  # noqa: S101 (a probe is about a row)
    if not case.listens:
        raise ConfigurationError(
            "A probe is a notification, and no feed listens here: all changes go to the outbox, "
            "which feeds poll. Leave --probe out."
        )
    if not watched_row.is_heard(case, answer.tables[0].registration, answer.key):
        answer.obstacles.append(
            "A notification from this connection does not arrive where feeds listen: run "
            "manage.py pgobserve doctor."
        )
        return
    processes = connected(case)[1]
    many = "es" if processes != 1 else ""
    answer.remarks.append(
        f"A probe was sent as the trigger sends it, and arrived. Feeds of {processes} server process"
        f"{many} have received it too, and read the row again if it is watched. If a client now "
        "shows a change, it had missed that change: look at the triggers. If not, the client is up "
        "to date, may not see the row, or is not subscribed."
    )


def _print(console: Console, answer: Answer) -> None:
    if not answer.obstacles:
        console.write(f"Changes of {answer.name} reach all subscribers.", "SUCCESS")
    else:
        console.write(f"What prevents the delivery of changes of {answer.name}:", "ERROR")
        for sentence in answer.obstacles:
            console.write(f"- {sentence}")
    for each in answer.tables:
        how = f"by {each.registration.transport} on channel {each.registration.channel}"
        title = f"{each.title}, table {each.status.table}: {each.status.state}, {how}"
        console.write(f"\n{title}", "MIGRATE_HEADING")
        for watcher in each.watchers:
            row = answer.rows.get(watcher)
            more = f"; {row.text}" if row is not None and row.text else ""
            console.write(f"- {watcher.name}: {watcher}{more}.")
        if not each.watchers:
            console.write("- No consumer watches this table.")
    if answer.remarks:
        console.write("")
    for sentence in answer.remarks:
        console.write(sentence)


def _as_json(answer: Answer) -> dict[str, object]:
    return {
        "label": answer.model._meta.label,
        "key": answer.key,
        "exists": answer.exists,
        "obstacles": answer.obstacles,
        "remarks": answer.remarks,
        "tables": [
            {
                "label": each.title,
                "table": each.status.table,
                "state": each.status.state,
                "transport": each.registration.transport,
                "channel": each.registration.channel,
                "columns": each.registration.compared,
                "routes": each.registration.routes,
                "watchers": [_watcher_json(w, answer.rows.get(w)) for w in each.watchers],
            }
            for each in answer.tables
        ],
    }


def _watcher_json(watcher: Watcher, row: RowResult | None) -> dict[str, object]:
    return {
        "name": watcher.name,
        "kind": watcher.kind,
        "model": watcher.root._meta.label if watcher.root is not None else None,
        "how": str(watcher),
        "watched": row.watched if row is not None else None,
        "row": row.text if row is not None else "",
    }
