"""``pgobserve migration <app>``: write the installation as a Django migration."""

from __future__ import annotations

import sysconfig
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from django.db.migrations.loader import MigrationLoader

from pgobserve.errors import ConfigurationError
from pgobserve.install import targets
from pgobserve.triggers import installer, migration_file
from pgobserve.triggers.refusals import explained
from pgobserve.triggers.server import catalog, drift

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pgobserve.cli.console import Console


def run(
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
    """Return the directory of an app's migrations."""
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
