"""Write the installation of triggers as a Django migration, for review before deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve.triggers import compiler, trigger_statements
from pgobserve.triggers.templates import read

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.trigger_values import TableInfo


def write(
    app_label: str,
    dependencies: Sequence[tuple[str, str]],
    tables: Sequence[tuple[Registration, TableInfo, bool]],
) -> str:
    """
    Return the text of a migration that installs triggers, and removes them in reverse.

    Args:
        dependencies: The migrations that create the tables.
        tables: Registration, table, and whether the triggers always fire.
    """
    return _fill(
        "django/install.v1.py-tpl",
        app=app_label,
        dependencies="\n".join(f"        {each!r}," for each in dependencies),
        operations="\n".join(_operation(*each) for each in tables),
    )


def _operation(registration: Registration, table: TableInfo, always: bool) -> str:
    functions = [
        each.function for each in compiler.wanted(registration, table, always=always).values()
    ]
    return _fill(
        "django/operation.v1.py-tpl",
        title=registration.title,
        table=str(table),
        statements=_literals(
            [
                *trigger_statements.install_statements(registration, table, always=always),
                *trigger_statements.announcements(registration),
            ]
        ),
        reverse=_literals(
            trigger_statements.uninstall_statements([table], functions, registration.namespace)
        ),
    )


def _fill(name: str, **parts: str) -> str:
    """Replace each ``{name}`` by its part, which may contain braces."""
    pieces = []
    rest = read(name)
    while rest:
        before, brace, rest = rest.partition("{")
        pieces.append(before)
        if brace:
            key, _, rest = rest.partition("}")
            pieces.append(parts[key])
    return "".join(pieces) + ("\n" if name.startswith("django/install") else "")


def _literals(statements: Iterable[str]) -> str:
    return "\n".join(f"                {_literal(each)}," for each in statements)


def _literal(statement: str) -> str:
    """Return SQL as the most legible Python literal."""
    if '"""' in statement or statement.endswith(('"', "\\")) or "\r" in statement:
        return repr(statement)
    return f'r"""{statement}"""' if "\\" in statement else f'"""{statement}"""'
