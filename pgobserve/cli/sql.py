"""``pgobserve sql``: print the statements of ``install``, for another role to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve.install import targets
from pgobserve.triggers import compiler, installer, trigger_statements
from pgobserve.triggers.refusals import explained
from pgobserve.triggers.server.drift import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgobserve.cli.console import Console


def run(
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
            wanted = compiler.wanted(registration, plan.table, always=False)
            functions = [each.function for each in wanted.values()]
            statements = tuple(
                trigger_statements.uninstall_statements(
                    [plan.table], functions, registration.namespace
                )
            )
        elif plan.before.state is State.OK and not everything:
            console.write("-- has its triggers: nothing to do")
            console.write("")
            continue
        else:
            statements = (*plan.statements, *trigger_statements.announcements(registration))
        for statement in ("BEGIN", f"SET LOCAL lock_timeout = '{timeout}'", *statements):
            console.write(f"{statement};")
        console.write("COMMIT;")
        console.write("")
