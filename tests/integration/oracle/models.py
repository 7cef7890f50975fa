"""
Tables whose rows belong to users.

Unlike other tests' tables they are in each database: deleting a user asks them for rows of that user.
:mod:`tests.integration.oracle.tables` adds what a walk needs besides.
Each text that a user may not see holds a marker of its owner, so that a leak is recognized.
"""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import models
from django.utils.translation import gettext_lazy

from tests.integration.oracle.context import tenant


class Team(models.Model):
    name = models.TextField()
    members = models.ManyToManyField(User, related_name="+")


class Tag(models.Model):
    name = models.TextField()


class OfTenant(models.Manager["Note"]):
    """Finds the notes of the tenant that the context names."""

    def get_queryset(self) -> models.QuerySet[Note]:
        return super().get_queryset().filter(owner__username=tenant.get())


class Note(models.Model):
    """Django's catalogs translate the names of its states."""

    STATES = [("y", gettext_lazy("Yes")), ("n", gettext_lazy("No"))]

    owner = models.ForeignKey(User, models.CASCADE, related_name="+")
    team = models.ForeignKey(Team, models.SET_NULL, null=True, related_name="notes")
    title = models.TextField()
    secret = models.TextField()
    state = models.CharField(max_length=1, choices=STATES, default="y")
    due = models.DateTimeField()
    weight = models.IntegerField(default=0)
    unshown = models.IntegerField(default=0)
    tags = models.ManyToManyField(Tag, related_name="notes")

    objects = models.Manager()
    of_tenant = OfTenant()

    class Meta:
        base_manager_name = "objects"


class Comment(models.Model):
    note = models.ForeignKey(Note, models.CASCADE, related_name="comments")
    author = models.ForeignKey(User, models.CASCADE, related_name="+")
    text = models.TextField()


class Grant(models.Model):
    """Lets a user see a note."""

    note = models.ForeignKey(Note, models.CASCADE, related_name="grants")
    user = models.ForeignKey(User, models.CASCADE, related_name="+")


class Paper(models.Model):
    """Policies of the database decide which rows a role may see."""

    owner = models.TextField()
    text = models.TextField()


class Place(models.Model):
    """Each tenant has such a table, in a schema of its own."""

    name = models.TextField()
