"""The tables that are changed."""

from __future__ import annotations

from django.db import models


class Item(models.Model):
    """What is watched."""

    name = models.TextField()
    rank = models.IntegerField(default=0)
    price = models.DecimalField(max_digits=10, decimal_places=2, default=1)
    changed = models.DateTimeField(auto_now_add=True)


class Membership(models.Model):
    """Which user may see which item."""

    item = models.ForeignKey(Item, models.CASCADE)
    user_id = models.IntegerField()

    class Meta:
        unique_together = [("user_id", "item")]


class Author(models.Model):
    """Who wrote books; a nested serializer shows his name."""

    name = models.TextField()


class Book(models.Model):
    """What is on lists."""

    title = models.TextField()
    pages = models.IntegerField(default=0)
    price = models.DecimalField(max_digits=10, decimal_places=2, default=1)
    author = models.ForeignKey(Author, models.CASCADE)
