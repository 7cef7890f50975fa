"""Which server the environment names."""

from __future__ import annotations

import pytest

from pgobserve.demo.environment import django_database, named_server


def test_nothing_named() -> None:
    """Neither an empty environment nor a mere user name names a server."""
    assert named_server({}) is None
    assert named_server({"PGUSER": "someone", "PGPASSWORD": "x", "DATABASE_URL": ""}) is None


def test_url_wins() -> None:
    """DATABASE_URL wins over the PG* variables."""
    environ = {"DATABASE_URL": "postgresql://me@db:5433/shop?sslmode=require", "PGHOST": "other"}

    assert named_server(environ) == {
        "user": "me",
        "host": "db",
        "port": "5433",
        "dbname": "shop",
        "sslmode": "require",
    }


@pytest.mark.parametrize("name", ["PGHOST", "PGHOSTADDR", "PGPORT"])
def test_libpq_finds_the_rest(name: str) -> None:
    """With a PG* variable libpq finds the server, and the database is postgres."""
    assert named_server({name: "x"}) == {"dbname": "postgres"}


def test_database_and_service() -> None:
    """PGDATABASE is kept, and a service keeps the database that it names."""
    assert named_server({"PGDATABASE": "shop"}) == {"dbname": "shop"}
    assert named_server({"PGSERVICE": "shop"}) == {}


def test_url_of_another_database() -> None:
    """A URL of something else is refused without quoting what may be a password."""
    with pytest.raises(ValueError, match=r"begins with 'mysql'.*Set it to postgresql") as caught:
        named_server({"DATABASE_URL": "mysql://me:hidden@db/shop"})

    assert "hidden" not in str(caught.value)


def test_django_database() -> None:
    """psycopg's keywords become Django's entry, the unknown ones its options."""
    assert django_database(
        {"host": "db", "port": 5433, "dbname": "shop", "sslmode": "require"}
    ) == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "shop",
        "HOST": "db",
        "PORT": "5433",
        "OPTIONS": {"sslmode": "require"},
    }
