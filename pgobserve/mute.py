"""Load many rows without a notification for each: ``from pgobserve.mute import muted``."""

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
    Run a block in a transaction whose triggers publish no changes.

    Use it for loads so large that naming each key is wasteful. At the block's end, in the same
    transaction, one marker per table makes readers load again what they watch of it. An exception
    rolls everything back. Triggers of another namespace on the same tables are not muted.

    Args:
        *models: The models whose tables are marked; none means every table of this database that
            has this project's triggers. Changes of other tables in the block are not published at
            all.
        using: Alias of the database.
    """
    return muting.muted(*models, using=using, namespace=conf.namespace(using))


def announce(*models: type[Model], using: str = DEFAULT_DB_ALIAS) -> None:
    """
    Mark tables as changed, so that readers load again what they watch of them.

    Use it after changes that fire no trigger: a muted prepared transaction, a restore, a partition
    attached or detached.

    Args:
        *models: The models whose tables are marked; none means every table of this database that
            has this project's triggers.
        using: Alias of the database.
    """
    muting.announce(*models, using=using, namespace=conf.namespace(using))
