"""``install``, ``uninstall``, ``sql`` and ``migration``: triggers are installed, removed, printed, or written as a migration."""

from __future__ import annotations

import sysconfig
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from django.core.management.base import CommandError
from django.db.migrations.loader import MigrationLoader

from pgobserve import conf
from pgobserve.cli.console import EXIT_FAILED
from pgobserve.errors import ConfigurationError, TriggerError
from pgobserve.install import survey, targets, unseen_tables
from pgobserve.triggers import compiler, installer, migration_file, registry, trigger_statements
from pgobserve.triggers.installer import InstallAction
from pgobserve.triggers.refusals import explained
from pgobserve.triggers.server import catalog, drift, outbox_storage
from pgobserve.triggers.server.drift import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pgobserve.cli.console import Console
    from pgobserve.triggers.installer import InstallOutcome

    Job = tuple[str, Callable[[], InstallOutcome]]

CHANGES = (InstallAction.INSTALLED, InstallAction.UPDATED, InstallAction.REMOVED)


def install(
    console: Console,
    labels: Sequence[str],
    *,
    database: str,
    lock_timeout: float,
    always: bool | None,
    as_json: bool,
) -> None:
    """Install the triggers of the labelled models, or of all observed models."""
    connection = targets.connect(database)
    wanted = targets.registrations(labels, using=database, always=always)
    console.warn(None if labels else targets.only_settings())
    install = partial(installer.install, using=database, lock_timeout=lock_timeout)
    jobs = [(each.title, partial(install, each)) for each in wanted]
    run_all(console, jobs, as_json=as_json)
    for _, status in survey.statuses(connection, labels):
        if status.state in (State.COLUMNS, State.KEY):
            console.warn(f"{status.sentence} ({status.detail})")
    for text in () if labels else unseen_tables.of(database):
        console.warn(text)
    for status in survey.clashes(connection):
        console.warn(f"{status.sentence} {status.detail}. {status.remedy}")
    outbox_storage.set_limit(connection, conf.namespace(database), conf.get().OUTBOX_MAX_BYTES)
    if not wanted and not as_json:
        console.write("Nothing to install: no consumer and no setting names a model.")


def uninstall(
    console: Console,
    labels: Sequence[str],
    *,
    database: str,
    lock_timeout: float,
    orphans: bool,
    as_json: bool,
) -> None:
    """Remove the triggers of the labelled models, or all triggers of this project."""
    connection = targets.connect(database)
    tables = survey.statuses(connection, labels) if labels else survey.installed(connection)
    # Keep the triggers on a child's parents, which other consumers may watch.
    named = {registry.canonical(registry.find(label))._meta.label for label in labels}
    uninstall = partial(
        installer.uninstall,
        namespace=conf.namespace(database),
        using=database,
        lock_timeout=lock_timeout,
    )
    jobs = [
        (status.title, partial(uninstall, table, status.title))
        for table, status in tables
        if table is not None
        and (status.state is State.ORPHAN or not orphans)
        and (status.title in named or not labels)
    ]
    run_all(console, jobs, as_json=as_json)
    if not jobs and not as_json:
        console.write("Nothing to remove.")


def print_sql(
    console: Console,
    labels: Sequence[str],
    *,
    database: str,
    lock_timeout: float,
    always: bool | None,
    everything: bool,
    reverse: bool,
) -> None:
    """Print the statements, one transaction for each table."""
    connection = targets.connect(database)
    timeout = installer.milliseconds(lock_timeout)
    for registration in targets.registrations(labels, using=database, always=always):
        with explained(registration.title, lock_timeout):
            plan = installer.make_plan(connection, registration)
        console.write(f"-- {registration.title} on {plan.table}")
        if reverse:
            wanted = compiler.wanted(registration, plan.table, always=False).values()
            functions = [each.function for each in wanted]
            statements = trigger_statements.uninstall_statements(
                [plan.table], functions, registration.namespace
            )
        elif plan.before.state is State.OK and not everything:
            console.write("-- has its triggers: nothing to do")
            console.write("")
            continue
        else:
            announced = trigger_statements.announcements(registration)
            statements = iter((*plan.statements, *announced))
        for statement in ("BEGIN", f"SET LOCAL lock_timeout = '{timeout}'", *statements):
            console.write(f"{statement};")
        console.write("COMMIT;")
        console.write("")


def run_all(console: Console, jobs: Sequence[Job], *, as_json: bool) -> None:
    """Run the jobs, each in its own transaction; a ``CommandError`` follows if one failed."""
    results: list[dict[str, object]] = []
    errors: list[str] = []
    for number, (title, job) in enumerate(jobs, 1):
        counted = f"[{number}/{len(jobs)}] " if len(jobs) > 1 else ""
        try:
            outcome = job()
        except TriggerError as error:
            errors.append(str(error))
            results.append({"label": title, "action": "failed", "error": str(error)})
            if len(jobs) > 1:
                console.err.write(f"{counted}{error}")
            continue
        done = {name: getattr(outcome, name) for name in ("table", "action", "was", "parts")}
        results.append({"label": title, **done})
        if not as_json:
            style = "SUCCESS" if outcome.action in CHANGES else ""
            console.write(counted + _line(outcome), style)
    if as_json:
        console.json(results)
    if errors:
        summary = f"{len(errors)} of {len(jobs)} tables failed and are unchanged."
        raise CommandError(errors[0] if len(jobs) == 1 else summary, returncode=EXIT_FAILED)


def _line(outcome: InstallOutcome) -> str:
    parts = f" and {outcome.parts} partitions" if outcome.parts else ""
    before = f" (was {outcome.was})" if outcome.action is InstallAction.UPDATED else ""
    return f"{outcome.title}: {outcome.action} on {outcome.table}{parts}{before}"


def write_migration(
    console: Console,
    app: str,
    labels: Sequence[str],
    *,
    database: str,
    name: str,
    always: bool | None,
    dry_run: bool,
) -> None:
    """Write the migration into the app's package, or print it."""
    connection = targets.connect(database)
    wanted = targets.registrations(labels, using=database, always=always)
    if not wanted:
        raise ConfigurationError("There is nothing to write: no model is observed.")
    directory = _directory(app)
    if not dry_run:
        _refuse_installed(app, directory)
    tables = []
    for registration in wanted:
        with explained(registration.title, installer.LOCK_TIMEOUT):
            table = installer.target(connection, registration)
            triggers = catalog.triggers(connection, registration.namespace, [table])
        always = drift.is_always(registration, triggers.get(table.oid, {}))
        tables.append((registration, table, always))
    loader = MigrationLoader(connection)
    apps = {each.model._meta.app_label for each in wanted}
    text = migration_file.write(app, _dependencies(loader, app, apps), tables)
    if dry_run:
        console.out.write(text, ending="")
        return
    path = directory / f"{_number(loader, app):04d}_{name}.py"
    path.write_text(text, encoding="utf-8")
    console.write(f"Wrote {path}", "SUCCESS")


def _directory(app: str) -> Path:
    try:
        module_name, _ = MigrationLoader.migrations_module(app)
    except LookupError:
        raise ConfigurationError(f"There is no app {app}; name it by its label.") from None
    try:
        module = import_module(module_name or "")
    except (ImportError, ValueError):
        raise ConfigurationError(
            f"The app {app} has no migrations: run manage.py makemigrations {app} "
            "first, or name another app."
        ) from None
    return Path(next(iter(module.__path__)))


def _refuse_installed(app: str, directory: Path) -> None:
    """Refuse to write into an installed package, whose next upgrade would delete the file."""
    if any(directory.is_relative_to(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")):
        raise ConfigurationError(
            f"The app {app} is an installed package, with its migrations at {directory}. Name an app of "
            "this project; its migration may install triggers on tables of other apps."
        )


def _dependencies(
    loader: MigrationLoader, app: str, others: Iterable[str]
) -> list[tuple[str, str]]:
    """Return the latest migrations of the app and of the apps with the tables."""
    return [
        leaf
        for label in [app, *sorted(set(others) - {app})]
        for leaf in loader.graph.leaf_nodes(label)
    ]


def _number(loader: MigrationLoader, app: str) -> int:
    numbers = [
        int(name[:4])
        for label, name in loader.disk_migrations
        if label == app and name[:4].isdigit()
    ]
    return max(numbers, default=0) + 1
