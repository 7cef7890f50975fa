"""Methods of DCRF that a project overrides in vain: nothing calls them here, or not for what they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_EVENTS: Final = (
    "Triggers report changes, of other programs too. Override serialize(), messages() or group_names(), or "
    "use the decorators serializer and groups_for_signal."
)
_SIGNALS: Final = (
    "No signal is connected: triggers report changes. Observe each model with a model_observer of its own; "
    "a nested serializer is watched without one."
)
_REQUESTS: Final = (
    "subscribe_instance() keeps request ids itself. Override subscribe_instance() or "
    "handle_observed_action()."
)

#: What to do instead, by the method that is overridden in vain.
OF_OBSERVERS: Final = {
    **dict.fromkeys(("_connect", "_connect_m2m", "post_init_receiver"), _SIGNALS),
    **dict.fromkeys(
        ("post_save_receiver", "post_delete_receiver", "m2m_changed_receiver"), _SIGNALS
    ),
    **dict.fromkeys(("database_event", "prepare_messages", "generate_messages"), _EVENTS),
    **dict.fromkeys(("send_prepared_messages", "get_observer_state"), _EVENTS),
    "_update_current_groups": _EVENTS,
}
OF_CONSUMERS: Final = {
    **dict.fromkeys(("_subscribe", "_unsubscribe_groups", "subscribed_requests"), _REQUESTS),
    "handle_detached_task_completion": "Errors of detached actions are logged. Catch them in the action.",
}


def in_vain(cls: type, known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the methods that a project's class overrides in vain, each with what to do instead."""
    for base in cls.__mro__:
        if not base.__module__.startswith("pgobserve."):
            for name in known.keys() & vars(base).keys():
                yield f"{base.__module__}.{base.__qualname__}.{name}()", known[name]
