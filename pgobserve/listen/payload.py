"""From the text of a notification to a :class:`~pgobserve.wire.Change`."""

from __future__ import annotations

from typing import Any, Final

from pgobserve.errors import PayloadInvalid
from pgobserve.wire import PAYLOAD_VERSION, TEXTS, Change, Operation, texts_of

#: Columns whose values a payload may carry. A table cannot have more columns.
MAX_ROUTES: Final = 1600

#: Calling the enumeration for each notification would take five times as long.
_OPERATIONS: Final = {operation.value: operation for operation in Operation}


def parse(text: str) -> Change:
    """
    Read a payload.

    Args:
        text: ``{"v":1,"t":"app.model","o":"I|U|D|T","x":"<xid8>","k":[key,…]|null}``, optionally with
            ``"r":{"column":[value,…]}``. Unknown keys are ignored, so that a later version can add some.
            Rows that it does not name in this form stand for any rows of the table.

    Raises:
        PayloadInvalid: No trigger wrote the text. Any role can NOTIFY on the channel.
    """
    try:
        content = TEXTS.decode(text)
    except (ValueError, RecursionError) as error:
        raise PayloadInvalid(f"not JSON: {text[:80]!r}") from error
    if not isinstance(content, dict) or content.get("v") != str(PAYLOAD_VERSION):
        raise PayloadInvalid(f"not a payload of version {PAYLOAD_VERSION}: {text[:80]!r}")
    label, schema = content.get("t"), content.get("s")
    if not isinstance(label, str) or not (schema is None or isinstance(schema, str)):
        raise PayloadInvalid(f"no table: {text[:80]!r}")
    return Change(
        label,
        _operation(content),
        _xid(content),
        texts_of(content.get("k")),
        schema,
        _routes(content),
    )


def _operation(content: dict[str, Any]) -> Operation:
    text = str(content.get("o"))
    operation = _OPERATIONS.get(text)
    if operation is None:
        raise PayloadInvalid(f"unknown operation {text[:80]!r}")
    return operation


def _xid(content: dict[str, Any]) -> int:
    # A string: JavaScript's numbers cannot hold an xid8.
    text = content.get("x")
    if isinstance(text, str) and len(text) <= 20 and text.isascii() and text.isdigit():
        return int(text)
    raise PayloadInvalid(f"no transaction: {str(text)[:80]!r}")


def _routes(content: dict[str, Any]) -> dict[str, tuple[Any, ...]] | None:
    routes = content.get("r")
    if not isinstance(routes, dict) or len(routes) > MAX_ROUTES:
        return None
    texts = {column: texts_of(values) for column, values in routes.items()}
    # The hub reads all rows that a column without values may lead to.
    return {column: values for column, values in texts.items() if values is not None}
