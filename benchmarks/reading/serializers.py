"""How a row is shown; it counts how often."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from benchmarks.reading.counting import counters
from benchmarks.reading.models import Author, Book, Item


class ItemSerializer(serializers.ModelSerializer):
    class Meta:
        model = Item
        fields = ["id", "name", "rank", "price", "changed"]

    def to_representation(self, instance: Any) -> Any:
        counters["serializations"] += 1
        return super().to_representation(instance)


class BookSerializer(serializers.ModelSerializer):
    class Meta:
        model = Book
        fields = ["id", "title", "pages", "price", "author"]

    def to_representation(self, instance: Any) -> Any:
        counters["serializations"] += 1
        return super().to_representation(instance)


class AuthorSerializer(serializers.ModelSerializer):
    class Meta:
        model = Author
        fields = ["id", "name"]


class NestedBookSerializer(BookSerializer):
    author = AuthorSerializer()
