"""Load much without telling each change: ``from pgobserve.mute import muted``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import DEFAULT_DB_ALIAS

from pgobserve import conf
from pgobserve.triggers import muting

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from django.db.models import Model

__all__ = ["announce", "muted"]


def muted(*models: type[Model], using: str = DEFAULT_DB_ALIAS) -> AbstractContextManager[None]:
    """
    Run a block in a transaction without telling its changes one by one.

    At the end, and in the same transaction, one marker per table tells the readers to read again
    what they watch there: for loads so large that naming the keys helps nobody. An exception rolls
    the block back and tells nothing. Triggers of another namespace on the same tables are not muted.

    Args:
        *models: Whose tables to mark at the end; none means every table of this database that has
            this project's triggers. Changes of other tables in the block are not told at all.
        using: Alias of the database.
    """
    return muting.muted(*models, using=using, namespace=conf.namespace(using))


def announce(*models: type[Model], using: str = DEFAULT_DB_ALIAS) -> None:
    """
    Tell the readers to read again what they watch in some tables.

    After something that could not tell its changes itself: a muted prepared transaction, a
    restore, a partition attached or detached.

    Args:
        *models: Whose tables; none means every table of this database that has this project's
            triggers.
        using: Alias of the database.
    """
    muting.announce(*models, using=using, namespace=conf.namespace(using))
