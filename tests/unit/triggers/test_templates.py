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
    "sql/announce.v1.sql": "1aad17eb0d665ed7d63cb5b33e3c85f40fbf6c57cbeab18d93ab8c003a00ca24",
    "sql/announce_outbox.v1.sql": "431b3c8dcd1fa8ccae6163dba595233838cc7cd3e3a07288d68ba4d7d8b3bb31",
    "sql/comment.v1.sql": "35a0846ae937531fe31c4d49fdc929aebb2f7e4452499d7433b9a17f6a67ed87",
    "sql/drop_function.v1.sql": "c0b0d256f9d2b75e15afebe52a225285e7fd9c507bf3ba14bdf5dbf2aa6377c8",
    "sql/drop_schema.v1.sql": "b68ff8dd4dcb51b2f3c1943e8a8b11c207ad1fde90f26d4aa470e21d2b397f32",
    "sql/drop_trigger.v1.sql": "76557b930a6575634e1556bc9e88273e712f3e5a09a4188663c1b7e587419976",
    "sql/each_partition.v1.sql": "cd5189868c086f767beaee196695e706768e113ac1e0156361ab08abb89c8742",
    "sql/enable_always.v1.sql": "c63a3735bb6dfae72cd6e5a857f135eadb5e9540406c06383096c6a64eb1931d",
    "sql/function.v1.sql": "af4db9bcdd433a2138dedbac2560747fedb51892f3212203f7b3d1027b0df245",
    "sql/function.v2.sql": "5c6cd8b89bd27f952a2b928238c90e698ebedd85ad7285361e08d170723b23e6",
    "sql/keys_delete.v1.sql": "04d0fc93f9621571e0da795f7af810b56ce571cad9cbb3b8fde6374317c13892",
    "sql/keys_insert.v1.sql": "8ae920f13ce22d8606e2b28240ad39a0d08e892e3bd4500205f69ee8f8a14b5f",
    "sql/keys_update.v1.sql": "191101503d71a5a7ae576fe1acd80774d62e7bf8ea87828c9f03974d823d74b1",
    "sql/notify.v1.sql": "5b069a73db970642a5bd3b525ce8070dcfc8560857e996dc4bcb1fd9fa4a9353",
    "sql/notify_routes.v1.sql": "94ce55d92f9a7f3d9b6f7fec0bb71b36679d5c14b0ac3117f3a2d41b055682bb",
    "sql/notify_truncate.v1.sql": "20f65899c3741c89e2016ec388e7f2b760fc7537eed7c458c474b2fbc48d3555",
    "sql/outbox.v1.sql": "2749a0f33312844194f163ab7de8c718f912668b87333e1c7faf439557a9bce3",
    "sql/outbox_chunks.v1.sql": "8f96750f4b7f4e6b1092e9192421351b7b75271330d934cf12105d51e8389005",
    "sql/outbox_cursors.v1.sql": "46a2e7f03bac268a627d551e1ecacad319aaff3769f72f0ab0e3e805497f2e80",
    "sql/outbox_drop.v1.sql": "534170d8f8395d35b0b7dfe898ef75304c39156e24cd614d32044d179c8c487b",
    "sql/outbox_empty.v1.sql": "cec85b82dc2bde3f98ab02d3f77ee57deb79e803efab69fdfefd61d323cab88d",
    "sql/outbox_failed.v1.sql": "dfee5aa43aaf775c133b75beb498d02fbe127367d2840e26e29af3fae2d56272",
    "sql/outbox_fits.v1.sql": "d10fe2ed42374fc1388eb7ceea0548e5ce9697b5de409fc93fc00e342fcace54",
    "sql/outbox_images.v1.sql": "48e6a6fc1206d78c543daca46d41ac22adee55b33a9d7a2f4188951d45d5515f",
    "sql/outbox_insert.v1.sql": "df5472b1a2307f3fa8aece6017ad9935d3a30a3e361894be0bf2028f9adae8f9",
    "sql/outbox_lose.v1.sql": "c933bad24a01807a139357055b3ab8fa04b548b9ddb8abfad9d08e489e6181bb",
    "sql/outbox_mark.v1.sql": "14d119d0210fa84070953e61012490fa6a604b408bc308c65ad67a1f3616db5c",
    "sql/outbox_measure.v1.sql": "b1efaa5d0bbf4a1af0049c0f51cd286a476d388ad1da51d24e91b79001c98c35",
    "sql/outbox_one_row.v1.sql": "0828b58d15bc367e845997a3bbe2377fdf1771f17437d880f233389d2841dcc7",
    "sql/outbox_privileges.v1.sql": "33687c76537f43646e0c3128d227548d9efc7043886f6d068c7f01c0d89f5f88",
    "sql/outbox_probe.v1.sql": "8d7939e92bef4737053e3664129892a2b96d186196aba7d82009e15859bc2f24",
    "sql/outbox_rotate.v1.sql": "7cc1f66ba7e18f4c3b9fd6f05130402900b1cb87c962dcad7fb147ed91221027",
    "sql/outbox_rows_delete.v1.sql": "0954fab8673eaccf3dc5aedd0ac345d708693be2cc471730fa1eee59c283be69",
    "sql/outbox_rows_insert.v1.sql": "802bd6162d8d00e3612a6774aac00a3bb75134b0ba5f5464bac4b293d08b29f6",
    "sql/outbox_rows_update.v1.sql": "c9c66cc6308d623f0a137eef3c16d60ebe392707c2c0a53a6ce23a0e92ae61e2",
    "sql/outbox_storage.v1.sql": "3cfd242b6417e635fd602545d319fa875763cf0f158803a2b013ddfce6dcdb13",
    "sql/outbox_strange_types.v1.sql": "d1c79a7f9cf3b38791e77be68b701c6c2660dc6c5ee754d581b2504d7ca65a03",
    "sql/outbox_truncate.v1.sql": "48735f17a6cbd8780c86c376b7c97dac493fdf3ee2fe5a4817fd1816891b3e08",
    "sql/outbox_turn.v1.sql": "c376355e97e770fe8d52860e50b4ffedd91a452f53a09963ee80ad28c4d7b92a",
    "sql/outbox_wake.v1.sql": "f51cdb2cf6d987f065704f3b92981f90d1c47ba662c424326aea1f1d2b42e668",
    "sql/pin.v1.sql": "15a0917be420589711afe3a08556fe9a4b82b5f32e7e110f168a5718863f32ff",
    "sql/revoke_function.v1.sql": "519d8c23204539d7202e50bb08f1d4f16573c48db6a6496c2fa03c98fdc0edd4",
    "sql/routes_delete.v1.sql": "f6dee974c57ec1cdf0f2bfc9eb1a0a5b32dd48e15acd255d06d87582502ca0cb",
    "sql/routes_insert.v1.sql": "43ce6f3e27a7be3d21d39331e3f7686378d13f91c74b8b04274b83b6c3a7eb39",
    "sql/routes_update.v1.sql": "f439b486e266c46dbd02b9f95f89d5faa214ce06506e0f42eca3e3b39d9c9a7f",
    "sql/schema.v1.sql": "02ebb4e56250a0df0fc60a81f58235e193317ef560955a41476c4b09f821bd0c",
    "sql/serialize.v1.sql": "b0e0a3e9e4c8e775d38744cc8ee5f3b92d304a7a9b37b464b568352de18fe4ff",
    "sql/strangers.v1.sql": "759e691f0b39109d3ea50cbe65f7a611e67a456bd14dd7299dced1de6f7390bc",
    "sql/trigger.v1.sql": "a141a9919dc2516f07ba7318e4a8c875407d8293eb03d273ad2bd8e173386cb9",
    "sql/unpin.v1.sql": "175a80e879027de9ba3c245131b1185044351ca4161a1d3301f7e05ba4e0ada0",
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
    """Names contain the version; none ends in .py, which compileall would try to compile."""
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
