"""The oracle can fail: it notices feeds that show users what is others'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.cohorts import cohort_builder, subscription_context
from pgobserve.cohorts.hook_context import BLANK, HookContext
from pgobserve.database import session
from pgobserve.render.rendering import Renderer
from tests.integration.oracle.socket import Differs
from tests.integration.oracle.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Callable

    Patch = pytest.MonkeyPatch

pytestmark = pytest.mark.slow

STEPS = 20


def one_guard(patch: Patch) -> None:
    """All subscriptions of a socket have the permissions of its first."""
    make, kept = subscription_context.Guard, {}

    def guard(consumer: Any, **options: Any) -> Any:
        return kept.setdefault(consumer, make(consumer, **options))

    patch.setattr(subscription_context, "Guard", guard)


def one_rendering(patch: Patch) -> None:
    """What is made of a row for one user serves all."""
    render = Renderer.render

    def shared(self: Any, *args: Any) -> Any:
        return render(self, *args)[0], True

    patch.setattr(Renderer, "render", shared)


def one_context(patch: Patch) -> None:
    """Hooks run without the context of their socket."""
    patch.setattr(HookContext, "current", classmethod(lambda cls: BLANK))


def one_language(patch: Patch) -> None:
    """Sockets share by their SQL, whatever they speak."""
    key = HookContext.key.fget

    def without_language(self: Any) -> Any:
        return (None, None, *key(self)[3:])  # type: ignore[misc]

    patch.setattr(HookContext, "key", property(without_language))


def language_left(patch: Patch) -> None:
    """What a hook activates stays in the thread."""

    class Here:
        def run(self, function: Callable[..., Any], *args: Any) -> Any:
            return function(*args)

        def copy(self) -> Here:
            return self

    patch.setattr(HookContext, "here", lambda self: Here())
    patch.setattr(HookContext, "run", lambda self, function, *args: function(*args))
    patch.setattr(HookContext, "left_by", lambda self, here, before: self)
    patch.setattr(HookContext, "key", property(lambda self: (None, None, ())))


def session_left(patch: Patch) -> None:
    """What a hook sets in the database session stays there."""
    patch.setattr(session, "_reset", lambda connection, known: None)


def one_session(patch: Patch) -> None:
    """Subscriptions share by their SQL, whatever their hooks have set."""
    patch.setattr(cohort_builder, "may_have_changed", lambda: False)


@pytest.mark.parametrize(
    ("mutate", "kinds", "localized"),
    [
        pytest.param(session_left, ["row_security", "all_papers"], False, id="session_left"),
        pytest.param(session_left, ["schema", "all_places"], False, id="session_left_path"),
        pytest.param(one_session, ["guc"] * 2, False, id="one_session"),
        pytest.param(one_guard, ["own_retrieve"] * 4, False, id="one_guard"),
        pytest.param(one_rendering, ["asking"], False, id="one_rendering"),
        pytest.param(one_context, ["tenant"], False, id="one_context"),
        pytest.param(one_context, ["tenant_permission"], False, id="one_context_permissions"),
        pytest.param(one_context, ["plain"], True, id="one_context_language"),
        pytest.param(one_language, ["plain"], True, id="one_language"),
        pytest.param(language_left, ["activates", "plain"], False, id="language_left"),
    ],
)
async def test_mutation_is_noticed(
    mutate: Callable[[Patch], None],
    kinds: list[str],
    localized: bool,
    feeds: None,
    monkeypatch: Patch,
    seed: int,
) -> None:
    """A feed that shares too much, or forgets too little, sends what the actions do not say."""
    mutate(monkeypatch)
    with pytest.raises(Differs):
        await Walk(seed, kinds, STEPS, localized=localized).run()
