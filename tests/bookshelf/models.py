"""
A library: rows that refer to each other in every way that Django has.

None is managed: the tests that need the tables make them, see :mod:`tests.bookshelf.tables`.
"""

from __future__ import annotations

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models


class Publisher(models.Model):
    name = models.TextField(default="")
    slug = models.SlugField(unique=True)

    class Meta:
        managed = False

    def __str__(self) -> str:
        return self.name


class Imprint(models.Model):
    """Refers to a column that is not the key."""

    name = models.TextField(default="")
    publisher = models.ForeignKey(Publisher, models.CASCADE, to_field="slug", null=True)

    class Meta:
        managed = False


class Author(models.Model):
    name = models.TextField(default="")
    active = models.BooleanField(default=True)
    publisher = models.ForeignKey(
        Publisher, models.SET_NULL, null=True, blank=True, related_name="authors"
    )

    class Meta:
        managed = False

    def __str__(self) -> str:
        return self.name

    @property
    def house(self) -> str:
        """What can't be seen from outside."""
        return self.publisher.name if self.publisher else ""


class Category(models.Model):
    """Refers to itself."""

    name = models.TextField(default="")
    parent = models.ForeignKey(
        "self", models.CASCADE, null=True, blank=True, related_name="children"
    )

    class Meta:
        managed = False

    def __str__(self) -> str:
        return f"{self.parent.name} / {self.name}" if self.parent else self.name


class Tag(models.Model):
    name = models.TextField(default="")

    class Meta:
        managed = False

    def __str__(self) -> str:
        return self.name


class Label(models.Model):
    """Sticks to a row of any model; the other's key is kept as text."""

    text = models.TextField(default="")
    content_type = models.ForeignKey(ContentType, models.CASCADE, db_constraint=False)
    object_id = models.TextField(db_index=True)
    content_object = GenericForeignKey()

    class Meta:
        managed = False


class Book(models.Model):
    title = models.TextField(default="")
    rank = models.IntegerField(default=0)
    author = models.ForeignKey(Author, models.CASCADE, null=True, related_name="books")
    category = models.ForeignKey(Category, models.SET_NULL, null=True, blank=True)
    imprint = models.ForeignKey(Imprint, models.SET_NULL, null=True, blank=True)
    tags = models.ManyToManyField(Tag, related_name="books")
    contributors = models.ManyToManyField(
        Author, through="Contribution", related_name="contributed"
    )
    related = models.ManyToManyField("self")
    labels = GenericRelation(Label)

    class Meta:
        managed = False

    def __str__(self) -> str:
        return self.title

    def shout(self) -> str:
        """A method: what it looks at can't be seen from outside."""
        return self.title.upper()


class Contribution(models.Model):
    """Between many and many, with something to say of its own."""

    book = models.ForeignKey(Book, models.CASCADE, related_name="contributions")
    author = models.ForeignKey(Author, models.CASCADE, related_name="contributions")
    role = models.TextField(default="")

    class Meta:
        managed = False


class Ebook(Book):
    """Has a table of its own besides."""

    format = models.TextField(default="epub")

    class Meta:
        managed = False


class Cover(models.Model):
    """At most one for each book, which is its key."""

    book = models.OneToOneField(Book, models.CASCADE, primary_key=True, related_name="cover")
    artist = models.TextField(default="")

    class Meta:
        managed = False


class Comment(models.Model):
    book = models.ForeignKey(Book, models.CASCADE, related_name="comments")
    author = models.ForeignKey(Author, models.SET_NULL, null=True, related_name="comments")
    text = models.TextField(default="")
    hidden = models.BooleanField(default=False)

    class Meta:
        managed = False


class Place(models.Model):
    name = models.TextField(default="")

    class Meta:
        managed = False


class Shop(Place):
    """Related rows, too, may have two tables."""

    hours = models.TextField(default="")

    class Meta:
        managed = False


class Copy(models.Model):
    book = models.ForeignKey(Book, models.CASCADE)
    shop = models.ForeignKey(Shop, models.CASCADE, related_name="copies")

    class Meta:
        managed = False


class Loan(models.Model):
    """Has a composite key."""

    pk = models.CompositePrimaryKey("card", "number")
    card = models.TextField()
    number = models.IntegerField()
    book = models.ForeignKey(Book, models.CASCADE, null=True, related_name="loans")

    class Meta:
        managed = False


class Fine(models.Model):
    """Refers to a composite key."""

    card = models.TextField()
    number = models.IntegerField()
    amount = models.IntegerField(default=0)
    loan = models.ForeignObject(
        Loan, models.DO_NOTHING, ["card", "number"], ["card", "number"], related_name="fines"
    )

    class Meta:
        managed = False
