"""``pgobserve why``: whom changes of a row reach, and what keeps them from others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from django.core.management.base import CommandError

from pgobserve.cli.console import EXIT_NOT_WELL
from pgobserve.cli.doctor import silence
from pgobserve.cli.doctor.case import Examination
from pgobserve.cli.doctor.listening import connected
from pgobserve.cli.why import delivery_report, probe, watched_row, watchers
from pgobserve.cli.why.watchers import WatcherKind
from pgobserve.errors import ConfigurationError
from pgobserve.install import targets
from pgobserve.sql.keys import shown
from pgobserve.sql.model_tables import tables_of
from pgobserve.triggers.registry import find

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from django.db.models import Model

    from pgobserve.cli.console import Console
    from pgobserve.cli.why.delivery_report import Told
    from pgobserve.cli.why.watched_row import Seen
    from pgobserve.cli.why.watchers import Way


@dataclass(slots=True)
class Answer:
    """
    What there is to say.

    Attributes:
        model: Whose changes.
        key: Of the row; None: of any.
        tables: How they are told, table by table.
        exists: Whether there is the row.
        seen: Whether consumers watch the row, by the ways.
        obstacles: What keeps changes from being told, in sentences.
        remarks: What else there is to know.
    """

    model: type[Model]
    key: Hashable | None
    tables: list[Told]
    exists: bool | None = None
    seen: dict[Way, Seen] = field(default_factory=dict)
    obstacles: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def ways(self) -> list[Way]:
        """All ways of all tables."""
        return [way for each in self.tables for way in each.ways]

    @property
    def name(self) -> str:
        """What it is about, for people."""
        title = self.model._meta.label
        return title if self.key is None else f"{title} {watched_row.written(self.key)}"


def run(
    console: Console, label: str, pk: str | None, *, database: str, as_json: bool, sends: bool
) -> None:
    """Print whom changes of a model's rows reach; fail if something keeps them from being told."""
    case = Examination(targets.connect(database))
    model = find(label)
    if sends and pk is None:
        raise ConfigurationError("A probe is about a row: name its key, or leave --probe out.")
    key = None if pk is None else watched_row.key_from(model, pk)
    imported = targets.import_consumers()
    answer = Answer(model, key, delivery_report.look(case, label))
    if key is not None:
        answer.exists = watched_row.exists(model, key, database)
        answer.seen = dict(_seen(case, answer, key)) if answer.exists else {}
    answer.obstacles = [*_obstacles(case, answer, imported=imported)]
    answer.remarks = [*_remarks(case, answer)]
    if sends and answer.exists:
        _probe(case, answer)
    if as_json:
        console.json(_facts(answer))
    else:
        _print(console, answer)
    if answer.obstacles:
        count = len(answer.obstacles)
        raise CommandError(
            f"{count} thing{'s' if count > 1 else ''} to mend.", returncode=EXIT_NOT_WELL
        )


def _seen(case: Examination, answer: Answer, key: Hashable) -> Iterator[tuple[Way, Seen]]:
    keyed, _ = tables_of(answer.model)
    for each in answer.tables:
        # A second parent's table has another key.
        if each.registration.model._meta.db_table in keyed:
            for way in each.ways:
                if watched_row.elsewhere(way) in (None, case.alias):
                    yield way, watched_row.seen_by(way, key, case.connection)


def _obstacles(case: Examination, answer: Answer, *, imported: bool) -> Iterator[str]:
    if not answer.ways:
        yield (
            f"Nobody watches {answer.model._meta.label}: clients of no consumer may subscribe to its "
            "rows, or to rows that are known to depend on them."
        )
        if not imported:
            yield "ASGI_APPLICATION is not set, so it is not known which consumers there are."
    for each in answer.tables:
        yield from each.obstacles()
    yield from silence.of_session(case, (each.status.always for each in answer.tables))
    for way in dict.fromkeys(answer.ways):
        alias = watched_row.elsewhere(way)
        if alias not in (None, case.alias):
            yield f"{way.name} reads from the database {alias!r} and listens there."
    if answer.exists is False:
        yield f"There is no {answer.name} in the database {case.alias!r}."
    elif answer.seen and all(seen.watched is False for seen in answer.seen.values()):
        yield "The row is none that somebody may watch now, and belongs to none."


def _remarks(case: Examination, answer: Answer) -> Iterator[str]:
    for each in answer.tables:
        yield from each.remarks()
    if any(way.kind is not WatcherKind.EVENTS for way in answer.ways):
        yield "An UPDATE that leaves what a consumer shows as it was is silent."
    for name, sentences in watchers.unresolved().items():
        if name not in {way.name for way in answer.ways}:
            yield f"{name} may depend on it all the same: {' '.join(sentences)}"
    if case.feed_parameters.get("application_name") is None and not connected(case)[0]:
        yield "No feed is connected to this database now: nobody is subscribed, here at least."


def _probe(case: Examination, answer: Answer) -> None:
    """Send what a trigger would, and say what that shows."""
    if not case.listens:
        raise ConfigurationError(
            "A probe is a notification, and nobody listens here: all goes by the outbox, which is "
            "polled. Leave --probe out."
        )
    if not probe.is_heard(case, answer.tables[0].registration, answer.key):
        answer.obstacles.append(
            "What was notified by this connection is not heard where feeds listen: run manage.py "
            "pgobserve doctor."
        )
        return
    processes = connected(case)[1]
    many = "es" if processes != 1 else ""
    answer.remarks.append(
        f"A probe was sent, as the trigger sends it, and heard. Feeds of {processes} server process"
        f"{many} have got it as well, and read the row again if it is watched. If a client shows what it did "
        "not show before, that change was not told: look at the triggers. If not, the client shows "
        "what is there, may not see it, or is not subscribed."
    )


def _print(console: Console, answer: Answer) -> None:
    if not answer.obstacles:
        console.write(f"Changes of {answer.name} are told to whoever has subscribed.", "SUCCESS")
    else:
        console.write(f"What keeps changes of {answer.name} from being told:", "ERROR")
        for sentence in answer.obstacles:
            console.write(f"- {sentence}")
    for each in answer.tables:
        console.write(f"\n{_heading(each)}", "MIGRATE_HEADING")
        for way in each.ways:
            seen = answer.seen.get(way)
            more = f"; {seen.says}" if seen is not None and seen.says else ""
            console.write(f"- {way.name}: {way}{more}.")
        if not each.ways:
            console.write("- Nobody watches this table.")
    if answer.remarks:
        console.write("")
    for sentence in answer.remarks:
        console.write(sentence)


def _heading(each: Told) -> str:
    how = f"by {each.registration.transport} on channel {each.registration.channel}"
    return f"{each.title}, table {each.status.table}: {each.status.state}, {how}"


def _facts(answer: Answer) -> dict[str, object]:
    return {
        "label": answer.model._meta.label,
        "key": None if answer.key is None else shown(answer.key),
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
                "columns": each.registration.told,
                "routes": each.registration.routes,
                "watchers": [_described(way, answer.seen.get(way)) for way in each.ways],
            }
            for each in answer.tables
        ],
    }


def _described(way: Way, seen: Seen | None) -> dict[str, object]:
    return {
        "name": way.name,
        "kind": way.kind,
        "model": way.root._meta.label if way.root is not None else None,
        "how": str(way),
        "watched": seen.watched if seen is not None else None,
        "row": seen.says if seen is not None else "",
    }
