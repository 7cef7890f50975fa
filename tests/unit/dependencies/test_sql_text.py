"""Tables in SQL text."""

from __future__ import annotations

import pytest

from pgobserve.dependencies.sql_text import tables_in

_CTES = (
    "WITH RECURSIVE t(id) AS (SELECT id FROM n UNION ALL SELECT n.id FROM n JOIN t ON 1=1), "
    "u AS MATERIALIZED (SELECT 2 FROM o) SELECT id FROM t JOIN u USING (id)"
)


@pytest.mark.parametrize(
    ("text", "tables", "listed"),
    [
        ("SELECT 1 FROM shop_order", "shop_order", ""),
        ("select a from Shop_Order o join x.Item i on true", "item shop_order", ""),
        ('SELECT "o"."id" FROM "Shop"."or""der" "o"', 'or"der', ""),
        ("SELECT a FROM o, p AS q, ONLY r WHERE a IN (1, b)", "o", "b p r"),
        ("SELECT a, b FROM (SELECT 1 FROM o) x", "o", "b"),
        (_CTES, "n n o", ""),
        ("SELECT x FROM generate_series(1, 2) x", "", ""),
        ("SELECT extract(epoch FROM made), trim(both FROM name) FROM o", "o", ""),
        ("SELECT a IS DISTINCT FROM b FROM o -- FROM c\n /* FROM d */ WHERE e = 'FROM f'", "o", ""),
        ("SELECT 1 FROM LATERAL o LEFT JOIN ONLY p ON true", "o p", ""),
        ("SELECT 1 FROM größe", "größe", ""),
    ],
)
def test_tables(text: str, tables: str, listed: str) -> None:
    """Tables are what FROM and JOIN name: neither CTEs nor functions, nor words in strings."""
    sure, maybe = tables_in(text)

    assert sorted(sure.elements()) == sorted(tables.split())
    assert maybe == set(listed.split())
