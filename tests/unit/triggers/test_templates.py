"""The templates: found where they are, and never changed once they were released."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from psycopg import sql

from pgobserve.errors import TemplatesMissing
from pgobserve.triggers import templates

#: A released template never changes: users' migrations hold what it made, and ``status`` compares
#: with it. To change one, add the next version beside it, and its hash here.
RELEASED = {
    "sql/comment.v1.sql": "35a0846ae937531fe31c4d49fdc929aebb2f7e4452499d7433b9a17f6a67ed87",
    "sql/drop_function.v1.sql": "88f44e399c02d3846c41528ce8f6c024894da32e45b48b9a8d4af259699e7f7b",
    "sql/drop_schema.v1.sql": "15de8010b3ee0a9028dc09e8d093cc03fb09f61fcb6464017e0c01d741be8085",
    "sql/drop_trigger.v1.sql": "76557b930a6575634e1556bc9e88273e712f3e5a09a4188663c1b7e587419976",
    "sql/each_partition.v1.sql": "cd5189868c086f767beaee196695e706768e113ac1e0156361ab08abb89c8742",
    "sql/enable_always.v1.sql": "c63a3735bb6dfae72cd6e5a857f135eadb5e9540406c06383096c6a64eb1931d",
    "sql/function.v1.sql": "ea037ae0ba10c1ac029091421991f24fc27d625041fdf672877bf32e4bef5362",
    "sql/keys_delete.v1.sql": "04d0fc93f9621571e0da795f7af810b56ce571cad9cbb3b8fde6374317c13892",
    "sql/keys_insert.v1.sql": "8ae920f13ce22d8606e2b28240ad39a0d08e892e3bd4500205f69ee8f8a14b5f",
    "sql/keys_update.v1.sql": "191101503d71a5a7ae576fe1acd80774d62e7bf8ea87828c9f03974d823d74b1",
    "sql/notify.v1.sql": "ebc6136f8fe483a1e6a094b5d717cdc30f5c2d4625fca0b31010ec9dfe783bf9",
    "sql/notify_truncate.v1.sql": "65b021374e926977fee1b91ab0d66b09786add20727d414f31fd630c04063279",
    "sql/schema.v1.sql": "c2e4f00f8d7f6b91f862984151efbdadf2754243b05c85fa4472b871bd60fd9a",
    "sql/serialize.v1.sql": "a3fd8eb1f49b4b170ec4c1abb3e03a7297683cbb6d12bf180bc0c74628b37eef",
    "sql/trigger.v1.sql": "6f3e76a57715be9ea3e84d60dab996669935e24e995b9dd7a2a9d5160cf1e272",
    "django/install.v1.py-tpl": "373f0c82e629d5e8e91f6b10d878116259e5f2233dfeb6dd53257f905f1c9838",
    "django/operation.v1.py-tpl": "51a658fd6016bdffbb38264d0aec6e92f0fdc941423d94aa820fc8d2e0240822",
}


def _names() -> list[str]:
    return sorted(
        f"{folder.name}/{file.name}"
        for folder in templates.root().iterdir()
        for file in folder.iterdir()
    )


def test_all_are_pinned() -> None:
    """Each template is pinned, and each pinned one is there."""
    assert _names() == sorted(RELEASED)


@pytest.mark.parametrize("name", sorted(RELEASED))
def test_released_template_is_unchanged(name: str) -> None:
    """The text of a released template is what it was."""
    data = templates.root().joinpath(*name.split("/")).read_bytes()

    assert hashlib.sha256(data).hexdigest() == RELEASED[name]


@pytest.mark.parametrize("name", sorted(RELEASED))
def test_name(name: str) -> None:
    """Names tell the version; none ends in .py, which compileall would try to compile."""
    assert re.fullmatch(r"(sql/[a-z_]+\.v\d+\.sql|django/[a-z_]+\.v\d+\.py-tpl)", name)


def test_checkout_is_found() -> None:
    """In a checkout the templates lie beside the package."""
    assert Path(str(templates.root())).name == "migrations_templates"


def test_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An installation without templates says where they should be, and what to do."""
    monkeypatch.setattr(templates.resources, "files", lambda _: tmp_path)
    monkeypatch.setattr(templates, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    templates.root.cache_clear()
    try:
        with pytest.raises(TemplatesMissing, match=r"incomplete, install it again\.$"):
            templates.root()
    finally:
        templates.root.cache_clear()


def test_render_quotes() -> None:
    """Values become literals and identifiers are quoted; per cent signs and braces pass."""
    text = templates.render(
        "comment.v1",
        trigger=sql.Identifier('a"b'),
        table=sql.Identifier("s", "t"),
        comment="it's 100 % {x}",
    )

    assert text == """COMMENT ON TRIGGER "a""b" ON "s"."t" IS 'it''s 100 % {x}'"""
