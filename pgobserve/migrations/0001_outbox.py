"""Create the outbox if a model's transport needs it; ``install`` creates a missing outbox too."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

from django.db import migrations

if TYPE_CHECKING:
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor

logger = logging.getLogger(__name__)


def create(apps: Any, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Create the outbox if the settings require it in this database."""
    from pgobserve import conf
    from pgobserve.install.migrating import needs_outbox
    from pgobserve.logs import fields
    from pgobserve.triggers.server import outbox_storage, schema_owners

    connection = schema_editor.connection
    if connection.vendor == "postgresql" and needs_outbox(connection.alias):
        namespace = conf.namespace(connection.alias)
        if problems := schema_owners.foreign_objects(connection, namespace):
            # Only warn: another role must not be able to block the project's other migrations.
            logger.warning(
                "The outbox of database %r was not created: %s. Run manage.py pgobserve install.",
                connection.alias,
                "; ".join(problems),
                extra=fields(alias=connection.alias),
            )
            return
        outbox_storage.create(connection, namespace, max_bytes=conf.get().OUTBOX_MAX_BYTES)


def drop(apps: Any, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Drop the outbox with all its rows."""
    from pgobserve import conf
    from pgobserve.triggers.server import outbox_storage

    connection = schema_editor.connection
    if connection.vendor == "postgresql":
        outbox_storage.drop(connection, conf.namespace(connection.alias))


class Migration(migrations.Migration):
    initial = True
    operations: ClassVar = [migrations.RunPython(create, drop)]
