"""The tests mirror the package: who opens a module finds its tests by name."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ["feed", "triggers"]

#: Modules that are shown by what they do together, on a real outbox.
ELSEWHERE = {
    "feed/admission": "unit/feed/test_roster.py",
    "feed/confirm": "integration/observer/test_confirm.py",
    "feed/lanes": "unit/feed/test_held.py",
    "feed/listwatch": "unit/feed/test_list_convergence.py",
    "feed/subject": "unit/feed/test_index.py",
    "feed/durable": "integration/outbox/test_worker.py",
    "feed/events": "integration/outbox/test_events.py",
    "feed/images": "integration/outbox/test_events.py",
    "feed/joining": "integration/feed/test_trace.py",
    "feed/options": "integration/feed/test_runtime.py",
    "feed/pace": "integration/outbox/test_follow.py",
    "feed/reader": "integration/outbox/test_follow.py",
    "feed/tripwire": "integration/feed/test_runtime.py",
    "feed/since": "integration/outbox/test_since.py",
    "feed/trust": "integration/outbox/test_trust.py",
    "triggers/pinned": "integration/triggers/test_shadowing.py",
    "triggers/owners": "integration/doctor/test_trust.py",
}


def _modules(package: str) -> list[str]:
    names = (path.stem for path in (ROOT / "pgobserve" / package).glob("*.py"))
    return sorted(name for name in names if name != "__init__")


@pytest.mark.parametrize(("package", "module"), [(p, m) for p in PACKAGES for m in _modules(p)])
def test_has_tests(package: str, module: str) -> None:
    """Every module has a test module of its name, in the unit or the integration tests."""
    kinds = ("unit", "integration")
    places = [ROOT / "tests" / kind / package / f"test_{module}.py" for kind in kinds]

    if elsewhere := ELSEWHERE.get(f"{package}/{module}"):
        places.append(ROOT / "tests" / elsewhere)

    assert any(place.exists() for place in places), f"no tests for pgobserve/{package}/{module}.py"
