"""Tables of the shapes that the tests need. The app has no migrations: syncdb makes them."""

from __future__ import annotations

from django.db import models


class Item(models.Model):
    """A plain table."""

    name = models.CharField(max_length=200)
    rank = models.IntegerField(default=0)


class Membership(models.Model):
    """Says which user may see which item."""

    user = models.CharField(max_length=50)
    item = models.ForeignKey(Item, on_delete=models.CASCADE)


class Topic(models.Model):
    """What notes are about."""

    name = models.CharField(max_length=50)


class Note(models.Model):
    """A table of which events are observed; nothing but model observers is about it."""

    name = models.CharField(max_length=200)
    rank = models.IntegerField(default=0)
    topics = models.ManyToManyField(Topic)


class Photo(Note):
    """Notes with a table of their own besides."""

    place = models.CharField(max_length=50, default="here")
