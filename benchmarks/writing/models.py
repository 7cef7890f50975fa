"""The table that is written to."""

from __future__ import annotations

from django.db import models


class Item(models.Model):
    """Ten columns, three indexes: the statements are in ``server.py``."""

    id = models.BigAutoField(primary_key=True)

    class Meta:
        app_label = "writing"
        db_table = "item"
        managed = False
