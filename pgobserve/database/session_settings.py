"""Settings that a hook wants in the database session, such as a role or a tenant."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import transaction

from pgobserve.database.backend_state import custom_attributes, wrapper_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Names and values for ``set_config``."""

    items: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> SessionSettings:
        """Put roles last: a role may lack the right to make other settings."""
        names = sorted(settings, key=lambda name: (name in ("role", "session_authorization"), name))
        return cls(tuple((name, str(settings[name])) for name in names))

    def apply(self, connection: BaseDatabaseWrapper, *, local: bool) -> None:
        """Apply the settings to the current transaction (``local``) or to the session."""
        wrapper: Any = connection
        for name, value in self.items:
            if name == "search_path" and hasattr(wrapper, "set_schema"):
                # A tenant backend sets the path itself, with each cursor.
                wrapper.set_schema(value.split(",")[0].strip(' "'))
        if self.items:
            calls = ", ".join(["pg_catalog.set_config(%s, %s, %s)"] * len(self.items))
            params = [part for item in self.items for part in (*item, local)]
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT {calls}", params)


@contextmanager
def locally(connection: BaseDatabaseWrapper, settings: SessionSettings) -> Iterator[None]:
    """Apply settings for one transaction, on a connection that is not the loader's."""
    before = custom_attributes(connection)
    try:
        with transaction.atomic(using=connection.alias):
            settings.apply(connection, local=True)
            yield
    finally:
        own = vars(wrapper_of(connection))
        own.update(before)
        if "search_path_set_schemas" in before:
            # The backend remembers a path that the rollback or commit has undone.
            own["search_path_set_schemas"] = None
