"""The tables. Defaults are the database's, so that a bare INSERT works from anywhere."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Ship(models.Model):
    """A ship in or near the harbour."""

    name = models.CharField(max_length=60)
    state = models.CharField(max_length=20, db_default="at sea")
    berth = models.CharField(max_length=10, null=True, blank=True)
    cargo = models.IntegerField(db_default=0, help_text="Tonnes.")

    objects: ClassVar[models.Manager[Ship]] = models.Manager()

    class Meta:
        db_table = "ship"


class Harbour(models.Model):
    """
    The harbour: one row.

    A trigger of the demo's own (see the migration) counts every ship that is inserted. Who watches
    this row is told through the feed that there are new ships to look up.
    """

    name = models.CharField(max_length=60)
    arrivals = models.BigIntegerField(db_default=0)

    objects: ClassVar[models.Manager[Harbour]] = models.Manager()

    class Meta:
        db_table = "harbour"
