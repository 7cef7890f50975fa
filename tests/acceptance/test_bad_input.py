"""What clients and writers get wrong costs a frame, never the socket or the feed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.client import Client
    from tests.acceptance.server import Server

INSERT = """
    INSERT INTO auth_user (username, email, password, first_name, last_name,
                           is_superuser, is_staff, is_active, date_joined)
    VALUES ('row ' || gen_random_uuid(), '', '', '', '', false, false, true, now()) RETURNING id
"""


@pytest.fixture
async def pk(server: Server) -> int:
    """The key of a row."""
    [(key,)] = await server.database.execute(INSERT)
    return int(key)


def no_pk(action: str, **others: object) -> str:
    """Return a message as text."""
    return json.dumps({"action": action, "request_id": 7, **others})


BAD = {
    "empty": ("", {400}),
    "not JSON": ("{action: retrieve}", {400}),
    "half a message": ('{"action": "retri', {400}),
    "a list": ('["retrieve"]', {400}),
    "a number": ("5", {400}),
    "a string": ('"retrieve"', {400}),
    "null": ("null", {400}),
    "nested without end": ("[" * 100_000, {400}),
    "no bytes": (b"", {400}),
    "bytes": (b"\x00\xff\xfe", {400}),
    "no action": ("{}", {405}),
    "action is null": ('{"action": null, "request_id": 7}', {400, 405}),
    "action is a list": ('{"action": ["retrieve"], "request_id": 7}', {400, 405}),
    "action is unknown": (no_pk("zork"), {405}),
    "action is a method that is none": (no_pk("get_queryset"), {405}),
    "no pk": (no_pk("retrieve"), {400}),
    "pk is null": (no_pk("retrieve", pk=None), {400, 404}),
    "pk is no number": (no_pk("retrieve", pk="abc"), {400, 404}),
    "pk overflows": (no_pk("retrieve", pk=10**30), {400, 404}),
    "pk is just too big": (no_pk("retrieve", pk=2**31), {404}),
    "pk is infinite": ('{"action": "retrieve", "pk": 1e999, "request_id": 7}', {400, 404}),
    "pk is not a number": ('{"action": "retrieve", "pk": NaN, "request_id": 7}', {400, 404}),
    "pk has a NUL": (no_pk("retrieve", pk="1\0"), {400, 404}),
    "pk is a lone surrogate": (no_pk("retrieve", pk="\ud800"), {400, 404}),
    "pk is a list": (no_pk("retrieve", pk=[1]), {400, 404}),
    "pk is an object": (no_pk("retrieve", pk={"a": 1}), {400, 404}),
    "subscribe without pk": (no_pk("subscribe_instance"), {400}),
    "subscribe to null": (no_pk("subscribe_instance", pk=None), {400, 404}),
    "subscribe to no number": (no_pk("subscribe_instance", pk="abc"), {400, 404}),
    "subscribe overflows": (no_pk("subscribe_instance", pk=10**30), {400, 404}),
    "subscribe to what is not there": (no_pk("subscribe_instance", pk=2**31 - 1), {404}),
    "subscribe without request_id": ('{"action": "subscribe_instance", "pk": 1}', {400}),
    "unsubscribe without pk": (no_pk("unsubscribe_instance"), {400}),
    "key self": (no_pk("retrieve", pk=1, self=1), {400}),
    "key consumer": (no_pk("retrieve", pk=2**31 - 1, consumer=1), {400, 404}),
    "key scope": (no_pk("retrieve", pk=2**31 - 1, scope=1), {400, 404}),
    "key kwargs": (no_pk("retrieve", pk=2**31 - 1, kwargs=1), {400, 404}),
}


@pytest.mark.parametrize(("message", "statuses"), BAD.values(), ids=BAD)
async def test_bad_message(
    client: Client, pk: int, server: Server, message: str | bytes, statuses: set[int]
) -> None:
    """A bad message gets a 4xx frame with a sentence, and the same socket goes on working."""
    watched = await client.subscribe(pk)

    await client.send(message)
    refused = await client.receive()

    assert set(refused) == {"action", "errors", "response_status", "request_id", "data"}
    assert refused["response_status"] in statuses
    assert refused["data"] is None
    assert refused["errors"]
    assert (await client.ask("retrieve", pk=pk))["response_status"] == 200
    await server.database.execute("UPDATE auth_user SET email = 'still@here' WHERE id = %s", pk)
    update = await client.receive()
    assert (update["action"], update["request_id"]) == ("update", watched)


FORGED = (
    "",
    "hello",
    "{",
    "[]",
    "null",
    "{}",
    "[" * 2000,
    '{"v": 99}',
    '{"v": 1}',
    '{"v": 1, "t": "no.such", "o": "U", "x": "1", "k": [1]}',
    '{"v": 1, "t": 5, "o": "U", "x": "1", "k": [1]}',
    '{"v": 1, "t": "auth.user", "o": "Z", "x": "1", "k": [1]}',
    '{"v": 1, "t": "auth.user", "o": "U", "x": "many", "k": [1]}',
    '{"v": 1, "t": "auth.user", "o": "U", "x": null, "k": [1]}',
    '{"v": 1, "t": "auth.user", "o": "U", "x": "1", "k": "all"}',
    '{"v": 1, "t": "auth.user", "o": "U", "x": "1", "k": ["abc", null, {}, [], 1e999, "\\u0000"]}',
    '{"v": 1, "t": "auth.user", "o": "U", "x": "99999999999999999999999", "k": [1]}',
    '{"v": 1, "t": "auth.user", "o": "U", "x": "1", "k": [99999999999999999999999]}',
    # Well made, and untrue.
    '{"v": 1, "t": "auth.user", "o": "U", "x": "18446744073709551615", "k": [%d]}',
    '{"v": 1, "t": "auth.user", "o": "D", "x": "18446744073709551615", "k": [%d]}',
    '{"v": 1, "t": "auth.user", "o": "I", "x": "18446744073709551615", "k": [%d]}',
    '{"v": 1, "t": "auth.user", "o": "T", "x": "18446744073709551615", "k": null}',
)


async def test_forged_notifications(client: Client, pk: int, server: Server) -> None:
    """Forged and garbled notifications change nothing for anybody, and stop nothing."""
    watched = await client.subscribe(pk)

    for text in FORGED:
        payload = text % pk if "%d" in text else text
        await server.database.execute("SELECT pg_notify('pgobserve', %s)", payload)
    await server.database.execute("UPDATE auth_user SET email = 'true@fact' WHERE id = %s", pk)

    update = await client.receive()
    assert (update["action"], update["request_id"]) == ("update", watched)
    assert update["data"]["email"] == "true@fact"
    assert (await client.ask("retrieve", pk=pk))["response_status"] == 200
