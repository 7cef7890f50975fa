"""Runs a project's code without a client and with queries forbidden."""

from __future__ import annotations

from contextlib import contextmanager
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, Final, NoReturn
from uuid import UUID

from django.apps import apps
from django.db import connections
from django.db.models import QuerySet, UUIDField

from pgobserve.generics import GenericAsyncAPIConsumer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Sample = tuple[QuerySet[Any], Any]

#: Actions for which a consumer may choose different querysets or serializers.
ACTIONS: Final = ("retrieve", "subscribe_instance", "update", "list", "subscribe_list")

#: What stays unknown when a method fails.
_DECIDES: Final = {
    "__init__": "what it shows and filters by",
    "get_queryset": "what it filters by",
    "filter_queryset": "what it filters by",
    "get_serializer": "what it shows",
}


class QueriedError(Exception):
    """The code queries the database."""

    def __init__(self) -> None:
        super().__init__("it queries the database")


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    raise QueriedError


@contextmanager
def no_queries() -> Iterator[None]:
    """Make every query of this thread raise :class:`QueriedError`."""
    # Not an execute_wrapper, which Django calls only after it has connected.
    names = ("connect", "cursor", "chunked_cursor")
    kept = [
        (vars(each), {name: vars(each).get(name) for name in names}) for each in connections.all()
    ]
    for own, _ in kept:
        own.update(dict.fromkeys(names, _refuse))
    try:
        yield
    finally:
        for own, before in kept:
            for name, value in before.items():
                if value is None:
                    own.pop(name)
                else:
                    own[name] = value


def brief(error: Exception) -> str:
    """Return an error's class and first line."""
    if isinstance(error, QueriedError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def samples(cls: Any, add_unresolved: Callable[[str], None]) -> Iterator[Sample]:
    """
    Yield querysets of a consumer class, each with its serializer.

    Args:
        cls: The class. Methods that it overrides are called.
        add_unresolved: Receives a sentence for each method that always fails.
    """
    if _is_declared(cls):
        if getattr(cls, "queryset", None) is not None:
            yield cls.queryset.all(), getattr(cls, "serializer_class", None)
        return
    dry_run = _DryRun(cls)
    for user in _users():
        for action in ACTIONS:
            yield from dry_run.sample(user, action)
    for sentence in dry_run.sentences():
        add_unresolved(sentence)


def _is_declared(cls: Any) -> bool:
    base = GenericAsyncAPIConsumer
    if not issubclass(cls, base):
        return True
    if cls.get_queryset is base.get_queryset and cls.queryset is None:
        return True
    if not hasattr(cls.queryset, "all") or isinstance(cls.serializer_class, property):
        return False
    hooks = ("get_queryset", "filter_queryset", "get_serializer_class", "get_serializer")
    return not cls.filter_backends and all(
        getattr(cls, name) is getattr(base, name) for name in hooks
    )


class _DryRun:
    """Calls a consumer's methods, and records which fail."""

    def __init__(self, cls: Any) -> None:
        self._cls = cls
        self._failed: dict[str, Exception] = {}
        self._worked: set[str] = set()

    def sample(self, user: Any, action: str) -> Iterator[Sample]:
        """Yield the queryset and serializer for a user and an action, as far as the methods work."""
        cls = self._cls
        kwargs = {"action": action, "request_id": None}
        consumer = self._call("__init__", cls)
        if consumer is None:
            return
        consumer.scope = _scope(user)
        queryset = self._call("get_queryset", consumer.get_queryset, **kwargs)
        if queryset is None:
            if not hasattr(cls.queryset, "all"):
                return
            queryset = cls.queryset.all()
        filtered = self._call("filter_queryset", consumer.filter_queryset, queryset, **kwargs)
        serializer = cls.serializer_class
        base = GenericAsyncAPIConsumer
        if serializer is not None or cls.get_serializer_class is not base.get_serializer_class:
            made = self._call("get_serializer", consumer.get_serializer, kwargs)
            serializer = serializer if made is None else made
        yield (queryset if filtered is None else filtered), serializer

    def _call(self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            with no_queries():
                result = method(*args, **kwargs)
            if iscoroutine(result):
                result.close()
                raise TypeError("it is a coroutine function")  # noqa: TRY301
            if name.endswith("queryset") and not isinstance(result, QuerySet):
                raise TypeError(f"it returns {type(result).__name__}")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 (the project's code)
            self._failed.setdefault(name, error)
            return None
        self._worked.add(name)
        return result

    def sentences(self) -> Iterator[str]:
        """Yield a sentence for each method that failed with every user and action."""
        for name, error in self._failed.items():
            if name not in self._worked:
                yield (
                    f"{name}() of {self._cls.__name__} could not be tried ({brief(error)}): "
                    f"{_DECIDES[name]} can't be seen."
                )


def _scope(user: Any) -> dict[str, Any]:
    return {
        "type": "websocket",
        "path": "/",
        "headers": [],
        "query_string": b"",
        "user": user,
        "session": {},
        "url_route": {"args": (), "kwargs": {}},
    }


def _users() -> Iterator[Any]:
    """Yield the anonymous user, and a user that is not in the database."""
    if not apps.is_installed("django.contrib.auth"):
        yield None
        return
    from django.contrib.auth import get_user_model
    from django.contrib.auth.models import AnonymousUser

    yield AnonymousUser()
    model: Any = get_user_model()
    yield model(pk=UUID(int=0) if isinstance(model._meta.pk, UUIDField) else 0)
