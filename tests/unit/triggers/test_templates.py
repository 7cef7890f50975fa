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
    "sql/function.v2.sql": "0ccd2368ebb1aa077a939eea283892661f42648480b7b3eb7f54295b6f560f76",
    "sql/keys_delete.v1.sql": "04d0fc93f9621571e0da795f7af810b56ce571cad9cbb3b8fde6374317c13892",
    "sql/keys_insert.v1.sql": "8ae920f13ce22d8606e2b28240ad39a0d08e892e3bd4500205f69ee8f8a14b5f",
    "sql/keys_update.v1.sql": "191101503d71a5a7ae576fe1acd80774d62e7bf8ea87828c9f03974d823d74b1",
    "sql/notify.v1.sql": "ebc6136f8fe483a1e6a094b5d717cdc30f5c2d4625fca0b31010ec9dfe783bf9",
    "sql/notify_routes.v1.sql": "6c64440d23dd09f4dd89b751500abf790f6e61b39fbad0918b60f42d423f1639",
    "sql/notify_truncate.v1.sql": "65b021374e926977fee1b91ab0d66b09786add20727d414f31fd630c04063279",
    "sql/outbox.v1.sql": "3e167aab23e64b154d16fed71959c087438996645859ba9133be86b60b8b52c4",
    "sql/outbox_cursors.v1.sql": "ef945a326b71737240066a380d4b9d88f29fa3904eb3d9686c2e8240a38125d0",
    "sql/outbox_drop.v1.sql": "68b3c6c84a9faa5454b25eb4103534b26b3d2bd902ad953d97893b64fa4b4bb2",
    "sql/outbox_empty.v1.sql": "eb15f896410eef1d5bf3b622469a097e7d65a688e7de29550f4925803a4ba618",
    "sql/outbox_fits.v1.sql": "6a52fe946cf55acb039c28219491df3d01e99ffef589e5be8f355f8ab2b44d31",
    "sql/outbox_insert.v1.sql": "b328f7ffadeff458691f8a9f40a05cd91387f43c7cfdda2cff55463ebe1e7c1a",
    "sql/outbox_lose.v1.sql": "e538c17e5f21f8f47d85e61f31e6e76d8ec5f95c6257f20e7b72689a360cf614",
    "sql/outbox_mark.v1.sql": "5208c70d68d0f0158b4339d8ce3e2e298ec99bef2f8d04dd1350734b795f53ba",
    "sql/outbox_measure.v1.sql": "627ad1aa25e7f807fb69528cbed10ed598e0dab00dcd2d223a89a31108cb1d0d",
    "sql/outbox_privileges.v1.sql": "6a300172468a5799c9400485640ef2e49eb10015ea4c016e13b00f7a16e32f1d",
    "sql/outbox_probe.v1.sql": "ec60a67a0190c8ac57093ab28894076f8d406b391bf9d6d5d7bee51497101a03",
    "sql/outbox_rotate.v1.sql": "6b56c3f79f3001c665178573022894c6904a3110328c741147c58aa33cd8f845",
    "sql/outbox_rows_delete.v1.sql": "98d46a2ae4cefce38d36b5bf73d5906ee80fe97d4ae8d9cd327b5e8f4e39b79c",
    "sql/outbox_rows_insert.v1.sql": "f0ece431fb2b936576c1e13671f16578cf9676db8e99672b0401b7d670c7f2f1",
    "sql/outbox_rows_update.v1.sql": "3c4f7e549cabfc9d1f3ed2f4acd1c29483ea84f04e9bce777fd42f427e2a87c1",
    "sql/outbox_storage.v1.sql": "07a51e13ab72d33e1089903248c864092ce4f6471b3bda7ca25132534773ad8c",
    "sql/outbox_truncate.v1.sql": "b0d7065ba9f715a1ae1c166a78f3757c057fe53d9fe19c3b61c9dc305b6dc0b1",
    "sql/outbox_turn.v1.sql": "3834bac42d0cc85798a6f867f9057d1bcfff872fcd3755f983c8d3ce48d497bc",
    "sql/outbox_wake.v1.sql": "e6c147366a11c028748690aded1e129dd5fc914819d41b3c36aeb07b5ea3b515",
    "sql/revoke_function.v1.sql": "3f5879df9a49bfd4d240ddd0f6429b98e15d22ce3814e17fbb362907255d0617",
    "sql/routes_delete.v1.sql": "f6dee974c57ec1cdf0f2bfc9eb1a0a5b32dd48e15acd255d06d87582502ca0cb",
    "sql/routes_insert.v1.sql": "43ce6f3e27a7be3d21d39331e3f7686378d13f91c74b8b04274b83b6c3a7eb39",
    "sql/routes_update.v1.sql": "f439b486e266c46dbd02b9f95f89d5faa214ce06506e0f42eca3e3b39d9c9a7f",
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
