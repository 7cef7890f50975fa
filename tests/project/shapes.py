"""
Tables of every shape that a trigger may meet.

None is managed: the tests that need one make it, so that nobody else's tests pay for it.
"""

from __future__ import annotations

from django.contrib.postgres.fields import DateRangeField
from django.db import models
from django.db.models.functions import Lower

from tests.project.models import Item


class SmallKey(models.Model):
    id = models.IntegerField(primary_key=True)
    name = models.TextField(default="")

    class Meta:
        managed = False


class UuidKey(models.Model):
    id = models.UUIDField(primary_key=True)
    name = models.TextField(default="")

    class Meta:
        managed = False


class TextKey(models.Model):
    id = models.TextField(primary_key=True)
    name = models.TextField(default="")

    class Meta:
        managed = False


class DateKey(models.Model):
    id = models.DateField(primary_key=True)
    name = models.TextField(default="")

    class Meta:
        managed = False


class MomentKey(models.Model):
    id = models.DateTimeField(primary_key=True)
    name = models.TextField(default="")

    class Meta:
        managed = False


class TimeKey(models.Model):
    id = models.TimeField(primary_key=True)
    name = models.TextField(default="")

    class Meta:
        managed = False


class AmountKey(models.Model):
    id = models.DecimalField(primary_key=True, max_digits=12, decimal_places=2)
    name = models.TextField(default="")

    class Meta:
        managed = False


class PairKey(models.Model):
    pk = models.CompositePrimaryKey("left", "right")
    left = models.TextField()
    right = models.IntegerField()
    name = models.TextField(default="")

    class Meta:
        managed = False


class MixedCase(models.Model):
    id = models.BigIntegerField(primary_key=True, db_column="Key Column")
    name = models.TextField(default="", db_column="n")

    class Meta:
        managed = False
        db_table = "Mixed Case {table}"


class Quoted(models.Model):
    id = models.BigIntegerField(primary_key=True, db_column='"Id"')
    name = models.TextField(default="")

    class Meta:
        managed = False
        db_table = '"Quoted"'


class LongName(models.Model):
    id = models.BigIntegerField(primary_key=True)
    name = models.TextField(default="")

    class Meta:
        managed = False
        db_table = "long_" + "n" * 57 + "z"


class LongTwin(models.Model):
    id = models.BigIntegerField(primary_key=True)
    name = models.TextField(default="")

    class Meta:
        managed = False
        db_table = "long_" + "n" * 57 + "y"


class Elsewhere(models.Model):
    id = models.BigIntegerField(primary_key=True)
    name = models.TextField(default="")

    class Meta:
        managed = False
        db_table = '"elsewhere"."thing"'


class ItemProxy(Item):
    class Meta:
        proxy = True


class ItemTwin(models.Model):
    name = models.CharField(max_length=200)

    class Meta:
        managed = False
        db_table = "project_item"


class Place(models.Model):
    id = models.BigIntegerField(primary_key=True)
    name = models.TextField(default="")

    class Meta:
        managed = False


class Restaurant(Place):
    stars = models.IntegerField(default=0)

    class Meta:
        managed = False


class Pizzeria(Restaurant):
    ovens = models.IntegerField(default=1)

    class Meta:
        managed = False


class Tag(models.Model):
    id = models.BigIntegerField(primary_key=True)

    class Meta:
        managed = False


class Book(models.Model):
    id = models.BigIntegerField(primary_key=True)
    tags = models.ManyToManyField(Tag)

    class Meta:
        managed = False


class Wide(models.Model):
    id = models.BigIntegerField(primary_key=True)
    shown = models.TextField(default="")
    hidden = models.TextField(default="")
    facts = models.JSONField(null=True)
    owner = models.ForeignKey(Tag, models.DO_NOTHING, null=True, db_constraint=False)
    tags = models.ManyToManyField(Tag, related_name="+", db_constraint=False)

    class Meta:
        managed = False


class Computed(models.Model):
    id = models.BigIntegerField(primary_key=True)
    name = models.TextField(default="")
    lower = models.GeneratedField(
        expression=Lower("name"), output_field=models.TextField(), db_persist=True
    )

    class Meta:
        managed = False


class Parent(models.Model):
    """The tests make this table and the next in SQL: the cascade is the database's."""

    id = models.BigIntegerField(primary_key=True)

    class Meta:
        managed = False


class Child(models.Model):
    id = models.BigIntegerField(primary_key=True)
    parent = models.ForeignKey(Parent, models.DO_NOTHING)

    class Meta:
        managed = False


class Measurement(models.Model):
    """Partitioned: the tests make this table in SQL."""

    id = models.BigIntegerField(primary_key=True)
    name = models.TextField(default="")

    class Meta:
        managed = False


class Raw(models.Model):
    """A table that the tests make in SQL, with columns that Django has no field for."""

    id = models.BigIntegerField(primary_key=True)

    class Meta:
        managed = False


class View(models.Model):
    """A view."""

    id = models.BigIntegerField(primary_key=True)

    class Meta:
        managed = False


class Plain(models.Model):
    id = models.BigAutoField(primary_key=True)
    name = models.TextField(default="")
    rank = models.IntegerField(default=0)

    class Meta:
        managed = False


class Typed(models.Model):
    """Values whose text depends on the settings of the session."""

    id = models.BigAutoField(primary_key=True)
    ratio = models.FloatField()
    took = models.DurationField()
    raw = models.BinaryField()
    days = DateRangeField()

    class Meta:
        managed = False


class Kiosk(Tag, Restaurant):
    """Two parents: the key is the first one's."""

    id_tag = models.OneToOneField(Tag, models.CASCADE, parent_link=True, primary_key=True)
    of_restaurant = models.OneToOneField(Restaurant, models.CASCADE, parent_link=True)

    class Meta:
        managed = False
