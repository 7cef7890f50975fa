"""Payloads never exceed their limit."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from pgobserve.triggers import registry
from pgobserve.triggers.bodies import trigger_body
from pgobserve.triggers.trigger_values import TableInfo
from pgobserve.wire import Operation
from tests.project.models import Item

TABLE = TableInfo("public", "project_item")
ELSEWHERE = TableInfo("tenant", "project_item")


def _registration(model: Any = Item, **changes: Any) -> registry.Registration:
    return replace(registry.build([model])[0], **changes)


def test_payload_leaves_room() -> None:
    """Header, the longest transaction id and the keys together never exceed the limit."""
    body = trigger_body.first_body(_registration(), Operation.INSERT, TABLE)
    (head,) = re.findall(r"concat\('(\{[^']*)'", body)
    (room,) = set(re.findall(r"ELSIF .*<=\) (\d+) THEN", body))

    assert head == '{"v":1,"t":"project.item","o":"I","x":"'
    assert len(head) + 20 + len('","k":[]}') + int(room) == 7999


@pytest.mark.parametrize("routes", [(), ("name",)])
def test_schema_leaves_room(routes: tuple[str, ...]) -> None:
    """The longest name of a schema is counted with a header that names it, as JSON escapes it."""
    here, elsewhere = (
        trigger_body.first_body(_registration(routes=routes), Operation.INSERT, each)
        for each in (TABLE, ELSEWHERE)
    )
    rooms = [
        int(re.findall(r"\((\d+) OPERATOR\(pg_catalog.-\) longest", body)[0])
        for body in (here, elsewhere)
    ]

    assert "TG_TABLE_SCHEMA::" not in here
    assert rooms[0] - rooms[1] == len(',"s":' + json.dumps("\1" * 63))
