"""Tables with keys of further types; not managed, as in shapes."""

from __future__ import annotations

from django.db import models

from tests.project.models import Item


class CodeKey(models.Model):
    id = models.CharField(max_length=10, primary_key=True)
    name = models.TextField(default="")

    class Meta:
        managed = False


class TinyKey(models.Model):
    id = models.SmallIntegerField(primary_key=True)
    name = models.TextField(default="")

    class Meta:
        managed = False


class AddressKey(models.Model):
    id = models.GenericIPAddressField(primary_key=True)
    name = models.TextField(default="")

    class Meta:
        managed = False


class FloatKey(models.Model):
    id = models.FloatField(primary_key=True)
    name = models.TextField(default="")

    class Meta:
        managed = False


class SpanKey(models.Model):
    id = models.DurationField(primary_key=True)
    name = models.TextField(default="")

    class Meta:
        managed = False


class ItemKey(models.Model):
    item = models.OneToOneField(Item, models.DO_NOTHING, primary_key=True, db_constraint=False)
    name = models.TextField(default="")

    class Meta:
        managed = False


class TripleKey(models.Model):
    pk = models.CompositePrimaryKey("moment", "amount", "code")
    moment = models.DateTimeField()
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    code = models.UUIDField()
    name = models.TextField(default="")

    class Meta:
        managed = False
