"""What is said when the server refuses."""

from __future__ import annotations

import pytest
from django.db import OperationalError
from psycopg import errors

from pgobserve.errors import TriggerError
from pgobserve.triggers.refusals import explain, explained

CASES: list[tuple[Exception, list[str]]] = [
    (
        errors.LockNotAvailable("canceling statement"),
        [
            "The table of shop.Order could not be locked within 2.5 s: a transaction that uses it",
            "is still open (see pg_stat_activity). Nothing was changed there; run the command",
            "again, or give it longer with --lock-timeout.",
        ],
    ),
    (
        errors.InsufficientPrivilege("permission denied for table shop_order"),
        [
            "The database role may not do this for shop.Order (permission denied for table",
            "shop_order). Run the command as the owner of the table, or hand them the output of",
            "manage.py pgobserve sql.",
        ],
    ),
    (
        errors.ReadOnlySqlTransaction("cannot execute DO in a read-only transaction"),
        [
            "The server takes no changes, so nothing was done for shop.Order (cannot execute DO",
            "in a read-only transaction). Name the primary with --database, or end",
            "default_transaction_read_only.",
        ],
    ),
    (
        errors.SyntaxError('syntax error at or near "OR"'),
        ['The database refused to work on shop.Order: syntax error at or near "OR".'],
    ),
    (
        errors.OperationalError("the connection is lost\nmore"),
        ["The database refused to work on shop.Order: the connection is lost."],
    ),
]


@pytest.mark.parametrize(("cause", "lines"), CASES)
def test_sentence(cause: Exception, lines: list[str]) -> None:
    """Each refusal is one sentence about what happened and one about what to do."""
    assert explain(cause, "shop.Order", 2.5) == " ".join(lines)


def test_explained() -> None:
    """Django's error becomes ours, with the cause kept."""
    with (
        pytest.raises(TriggerError, match=r"may not do this for shop\.Order") as caught,
        explained("shop.Order", 1),
    ):
        raise OperationalError from errors.InsufficientPrivilege("no")

    assert isinstance(caught.value.__cause__, OperationalError)
