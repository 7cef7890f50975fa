"""The tutorial, word for word: a real server, a real socket, writers that know nothing of it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.acceptance.client import Client
    from tests.acceptance.server import Database, Server

numbers = itertools.count(1)

#: Must be seen by nobody.
SECRET = "pbkdf2-of-someone"

INSERT = """
    INSERT INTO auth_user (username, email, password, first_name, last_name,
                           is_superuser, is_staff, is_active, date_joined)
    VALUES (%s, %s, %s, '', '', false, false, true, now()) RETURNING id
"""


@pytest.fixture
def database(server: Server) -> Database:
    """The database that the server serves."""
    return server.database


async def add_user(database: Database) -> dict[str, Any]:
    """Insert a user and return what its serializer shows."""
    name = f"test {next(numbers)}"
    email = f"{name.replace(' ', '')}@example.com"
    [(pk,)] = await database.execute(INSERT, name, email, SECRET)
    return {"id": pk, "username": name, "email": email}


@pytest.fixture
async def user(database: Database) -> dict[str, Any]:
    """A user, as its serializer shows it."""
    return await add_user(database)


def frame(action: str, request_id: int, data: object, status: int = 200) -> dict[str, Any]:
    """Return a frame without errors."""
    return {
        "action": action,
        "errors": [],
        "response_status": status,
        "request_id": request_id,
        "data": data,
    }


@pytest.mark.parametrize("server", ["daphne", "uvicorn"], indirect=True)
async def test_the_whole_tutorial(client: Client, user: dict[str, Any], database: Database) -> None:
    """Retrieve, subscribe, a save in another process, the subscription's message."""
    pk = user["id"]
    assert await client.ask("retrieve", request_id=1550049, pk=pk) == frame(
        "retrieve", 1550049, user
    )
    reply = await client.ask("subscribe_instance", request_id=1550050, pk=pk)
    assert reply == frame("subscribe_instance", 1550050, None, 201)

    database.manage(
        "shell",
        "-c",
        "from django.contrib.auth.models import User\n"
        f"user = User.objects.get(pk={pk})\n"
        f"user.username = 'edited user name {pk}'\n"
        "user.save()",
    )

    edited = user | {"username": f"edited user name {pk}"}
    assert await client.receive() == frame("update", 1550050, edited)


async def test_raw_sql(client: Client, user: dict[str, Any], database: Database) -> None:
    """A row changed by raw SQL arrives."""
    request_id = await client.subscribe(user["id"])

    await database.execute(
        "UPDATE auth_user SET email = 'new@example.com' WHERE id = %s", user["id"]
    )

    assert await client.receive() == frame(
        "update", request_id, user | {"email": "new@example.com"}
    )


async def test_queryset_update(client: Client, user: dict[str, Any], database: Database) -> None:
    """A row changed by a queryset's update, which sends no signal, arrives."""
    request_id = await client.subscribe(user["id"])

    database.manage(
        "shell",
        "-c",
        "from django.contrib.auth.models import User\n"
        f"User.objects.filter(pk={user['id']}).update(email='bulk@example.com')",
    )

    assert await client.receive() == frame(
        "update", request_id, user | {"email": "bulk@example.com"}
    )


async def test_delete_and_return(client: Client, user: dict[str, Any], database: Database) -> None:
    """A deleted row is a delete with its key; put back, it is a create."""
    pk = user["id"]
    request_id = await client.subscribe(pk)

    await database.execute("DELETE FROM auth_user WHERE id = %s", pk)

    assert await client.receive() == frame("delete", request_id, {"pk": pk}, 204)

    insert = INSERT.replace("(username", "(id, username").replace("VALUES (", "VALUES (%s, ")
    await database.execute(insert, pk, user["username"], user["email"], SECRET)

    assert await client.receive() == frame("create", request_id, user)


async def test_unsubscribe(client: Client, user: dict[str, Any], database: Database) -> None:
    """After unsubscribing, changes of that row are silent and those of others are not."""
    other = await add_user(database)
    request_id = await client.subscribe(user["id"])
    other_id = await client.subscribe(other["id"])

    reply = await client.ask("unsubscribe_instance", pk=user["id"], request_id=request_id)
    assert reply == frame("unsubscribe_instance", request_id, None, 204)
    await database.execute("UPDATE auth_user SET email = 'a@example.com' WHERE id = %s", user["id"])
    await database.execute(
        "UPDATE auth_user SET email = 'b@example.com' WHERE id = %s", other["id"]
    )

    assert await client.receive() == frame("update", other_id, other | {"email": "b@example.com"})


async def test_unsubscribe_after_delete(
    client: Client, user: dict[str, Any], database: Database
) -> None:
    """A subscription can be ended after its row is gone."""
    request_id = await client.subscribe(user["id"])
    await database.execute("DELETE FROM auth_user WHERE id = %s", user["id"])
    assert (await client.receive())["action"] == "delete"

    reply = await client.ask("unsubscribe_instance", pk=user["id"], request_id=request_id)

    assert reply == frame("unsubscribe_instance", request_id, None, 204)


async def test_what_never_happened_is_silent(
    client: Client, user: dict[str, Any], database: Database
) -> None:
    """A rollback, and an update that changes nothing, are silent."""
    pk = user["id"]
    request_id = await client.subscribe(pk)

    await database.execute(f"BEGIN; UPDATE auth_user SET email = 'no' WHERE id = {pk}; ROLLBACK")
    await database.execute("UPDATE auth_user SET email = email WHERE id = %s", pk)
    await database.execute("UPDATE auth_user SET email = 'yes@example.com' WHERE id = %s", pk)

    assert await client.receive() == frame(
        "update", request_id, user | {"email": "yes@example.com"}
    )


async def test_many_rows_in_one_statement(client: Client, database: Database) -> None:
    """Each watched row of a bulk statement arrives once."""
    users = [await add_user(database) for _ in range(20)]
    ids = {await client.subscribe(user["id"]): user for user in users}

    await database.execute(
        "UPDATE auth_user SET email = 'bulk' || id || '@example.com' WHERE id = ANY(%s)",
        [user["id"] for user in users],
    )

    frames = [await client.receive() for _ in users]
    expected = [
        frame("update", request_id, user | {"email": f"bulk{user['id']}@example.com"})
        for request_id, user in ids.items()
    ]
    assert sorted(frames, key=lambda one: one["request_id"]) == expected


async def test_password_is_in_no_frame(
    client: Client, user: dict[str, Any], database: Database
) -> None:
    """A write-only field appears in no frame, not even when it alone was changed."""
    pk = user["id"]
    await client.ask("retrieve", pk=pk)
    await client.subscribe(pk)

    await database.execute("UPDATE auth_user SET password = password || 'x' WHERE id = %s", pk)
    await database.execute("UPDATE auth_user SET email = 'last@example.com' WHERE id = %s", pk)
    while "last@example.com" not in client.frames[-1]:
        await client.receive()
    await database.execute("DELETE FROM auth_user WHERE id = %s", pk)
    assert (await client.receive())["action"] == "delete"

    assert not [text for text in client.frames if "password" in text or SECRET in text]
