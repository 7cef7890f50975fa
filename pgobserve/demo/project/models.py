"""The tables, with database defaults, so that a plain INSERT works."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Line(models.Model):
    """A shipping line."""

    name = models.CharField(max_length=60)

    objects: ClassVar[models.Manager[Line]] = models.Manager()

    class Meta:
        db_table = "line"


class Ship(models.Model):
    """A ship in or near the harbour."""

    name = models.CharField(max_length=60)
    line = models.ForeignKey(Line, models.SET_NULL, null=True, blank=True)
    state = models.CharField(max_length=20, db_default="at sea")
    berth = models.CharField(max_length=10, null=True, blank=True)
    cargo = models.IntegerField(db_default=0, help_text="Tonnes.")

    objects: ClassVar[models.Manager[Ship]] = models.Manager()

    class Meta:
        db_table = "ship"
