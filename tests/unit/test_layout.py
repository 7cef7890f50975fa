"""The house keeps its rules: small folders, unique names, and tests that mirror the package."""

from __future__ import annotations

import ast
import importlib.util
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import grimp
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pgobserve"

#: Modules in a folder. Of the root most are DCRF's import paths, which users' code names.
MOST_MODULES = 12
DCRF_PATHS = {
    *("consumers", "decorators", "exceptions", "generics", "mixins", "pagination"),
    *("permissions", "scope_utils", "settings"),
}

#: Django's names for what an app has, and DCRF's modules of names. Their folders tell them apart.
SHARED_NAMES = {
    *("__init__", "apps", "consumers", "generics", "models", "settings", "urls", "views"),
    *("asgi", "config", "examples", "fleet", "serializers"),
}


def _modules() -> list[Path]:
    return [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")]


FOLDERS = sorted({path.parent for path in _modules()})

#: Folders whose modules have tests of their names.
STAGES = [
    *(
        "triggers",
        "triggers/bodies",
        "triggers/server",
        "listen",
        "outbox",
        "hub",
        "sql",
        "database",
        "workers",
    ),
    *("load", "read", "deliver", "runtime"),
]

#: Modules that are shown by what they do together with others, most of them on a real database.
ELSEWHERE = {
    "triggers/outbox_statements": "integration/triggers/test_outbox_storage.py",
    "triggers/bodies/outbox_bodies": "integration/triggers/test_outbox_bodies.py",
    "triggers/server/outbox_storage": "integration/triggers/test_outbox_storage.py",
    "triggers/server/catalog": "integration/triggers/test_catalog.py",
    "triggers/server/pinned_search_path": "integration/triggers/test_shadowing.py",
    "triggers/server/schema_owners": "integration/doctor/test_trust.py",
    "listen/confirm": "integration/deliver/test_confirm.py",
    "outbox/event_subscriptions": "integration/outbox/test_outbox_reader.py",
    "outbox/outbox_pages": "integration/outbox/test_outbox_reader.py",
    "outbox/row_images": "integration/outbox/test_event.py",
    "hub/subscriptions": "unit/hub/test_list_convergence.py",
    "hub/list_deliveries": "unit/hub/test_list_state.py",
    "hub/outcome": "unit/deliver/test_send_queue.py",
    "hub/subscription_table": "unit/hub/test_hub.py",
    "sql/columns": "integration/types/test_key_matrix.py",
    "sql/key_sql": "integration/types/test_key_matrix.py",
    "sql/join_sql": "integration/sql/test_reverse_lookup.py",
    "workers/loop_tripwire": "integration/runtime/test_runtime.py",
    "load/batches": "unit/load/test_loader.py",
    "load/load_log": "unit/load/test_loader.py",
    "read/row_reader": "unit/database/test_server_identity.py",
    "load/lanes": "unit/workers/test_pool_worker.py",
    "read/list_batch": "integration/deliver/test_several.py",
    "read/list_load": "integration/deliver/test_list.py",
    "read/base_load": "integration/deliver/test_loading.py",
    "deliver/frames": "unit/deliver/test_frame_writer.py",
    "runtime/feed": "integration/runtime/test_runtime.py",
    "runtime/stages": "integration/runtime/test_runtime.py",
    "runtime/trigger_checks": "integration/runtime/test_runtime.py",
}


@pytest.mark.parametrize("folder", STAGES)
def test_has_tests(folder: str) -> None:
    """Every module of a stage has tests of its name, or a place that is named here."""
    names = {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__"}
    missing = [
        name
        for name in sorted(names)
        if not any((ROOT / place).exists() for place in _places(folder, name))
    ]

    assert missing == []


def _places(folder: str, name: str) -> list[str]:
    own = [f"tests/{kind}/{folder}/test_{name}.py" for kind in ("unit", "integration")]
    elsewhere = ELSEWHERE.get(f"{folder}/{name}")
    return [*own, f"tests/{elsewhere}"] if elsewhere else own


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_folder_is_small(folder: Path) -> None:
    """A folder holds at most twelve modules."""
    names = {path.stem for path in _modules() if path.parent == folder} - {"__init__", "__main__"}
    if folder == Path():
        names -= DCRF_PATHS

    assert len(names) <= MOST_MODULES, sorted(names)


def test_names_are_unique() -> None:
    """No two modules have the same name, so that a name is enough to find one."""
    names = Counter(path.stem for path in _modules() if path.stem not in SHARED_NAMES)

    assert [name for name, count in names.items() if count > 1] == []


def test_functions_are_not_hidden() -> None:
    """No module or folder has the name of a function of the package, which importing it would replace."""
    body = ast.parse((PACKAGE / "__init__.py").read_text()).body
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef)}

    assert "events" in functions
    assert functions & {path.parts[0].removesuffix(".py") for path in _modules()} == set()


def test_imports_have_no_cycle() -> None:
    """No two modules import each other, by way of others either; imports for type checking count."""
    graph = grimp.build_graph("pgobserve", exclude_type_checking_imports=False, cache_dir=None)
    imports = {each: graph.find_modules_directly_imported_by(each) for each in graph.modules}

    assert _cycles(imports) == []


def test_finds_cycles() -> None:
    """Modules of a cycle are found together, and others are not among them."""
    imports = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a", "f"}, "f": {"e"}}

    assert sorted(_cycles(imports), key=min) == [{"b", "c"}, {"e", "f"}]


def _cycles(imports: Mapping[str, Iterable[str]]) -> list[set[str]]:
    """Return the strongly connected components of more than one module (Tarjan's algorithm)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for each in imports[module]:
            if each not in number:
                visit(each)
            if each in stack:
                lowest[module] = min(lowest[module], lowest[each])
        if lowest[module] == number[module]:
            at = stack.index(module)
            component, stack[at:] = {*stack[at:]}, []
            if len(component) > 1:
                found.append(component)

    for module in imports:
        if module not in number:
            visit(module)
    return found


def test_picture() -> None:
    """The picture of the house is drawn from the contracts and imports as they are."""
    spec = importlib.util.spec_from_file_location("house", ROOT / "docs/images/house.py")
    assert spec is not None
    assert spec.loader is not None
    house = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(house)

    assert house.PICTURE.read_text() == house.draw(), "run: python docs/images/house.py"
