"""What a database backend other than Django's keeps in Python beside the session: a tenant's schema, say."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper
from django.utils.connection import ConnectionProxy

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

#: Attributes of Django's own wrapper; tenant backends keep their schema in others.
_OF_DJANGO: Final = frozenset(vars(DatabaseWrapper({}))) | frozenset(dir(DatabaseWrapper))
_PLAIN: Final = (type(None), bool, int, float, str, tuple)

#: Methods that make cursors; a backend may set a tenant or a role in its override of one.
_CURSORS: Final = ("cursor", "_cursor", "create_cursor", "make_cursor", "make_debug_cursor")


def wrapper_of(connection: Any) -> BaseDatabaseWrapper:
    """Return the wrapper itself, also for the proxy ``django.db.connection``."""
    result: BaseDatabaseWrapper = (
        connections[connection.alias] if type(connection) is ConnectionProxy else connection
    )
    return result


@lru_cache(maxsize=16)
def has_own_cursors(backend: type) -> bool:
    """Return whether a wrapper class overrides how cursors are made."""
    return any(getattr(backend, each) is not getattr(DatabaseWrapper, each) for each in _CURSORS)


def backend_attributes(connection: BaseDatabaseWrapper) -> dict[str, Any]:
    """Return the attributes with plain values that a backend adds to Django's."""
    return {
        name: value
        for name, value in custom_attributes(connection).items()
        if isinstance(value, _PLAIN)
    }


def custom_attributes(connection: BaseDatabaseWrapper) -> dict[str, Any]:
    """Return all attributes that Django's own wrapper does not have."""
    return {k: v for k, v in vars(wrapper_of(connection)).items() if k not in _OF_DJANGO}
