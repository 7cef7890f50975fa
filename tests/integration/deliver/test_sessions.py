"""Rows are read in the database session that the hooks of their consumer prepare, and no others are."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.backends.signals import connection_created
from django.db.models import QuerySet
from django.db.models.expressions import RawSQL
from rest_framework import serializers

from pgobserve import mixins
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin
from pgobserve.permissions import BasePermission
from tests.integration.deliver.conftest import execute, run_sql
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Iterator

rendered: list[Any] = []


def ask(sql: str, *params: Any) -> Any:
    """Run SQL as a hook does."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone() if cursor.description else None


class Seen(serializers.ModelSerializer):
    """Shows the session that it is rendered in."""

    session = serializers.SerializerMethodField()

    class Meta:
        model = Item
        fields = ["id", "name", "session"]

    def get_session(self, item: Item) -> Any:
        rendered.append(item.pk)
        return ask("SELECT coalesce(current_setting('app.tenant', true), '')")[0]


class Base(
    ObserverModelListMixin,
    ObserverModelInstanceMixin,
    mixins.ListModelMixin,
    GenericAsyncAPIConsumer,
):
    queryset = Item.objects.order_by("id")
    serializer_class = Seen


class ByHook(Base):
    """The documented way."""

    def database_session(self, **kwargs: Any) -> Any:
        return {"app.tenant": self.scope["tenant"], "role": "session_app"}


class InQueryset(Base):
    """As projects do that have found no other way."""

    def get_queryset(self, **kwargs: Any) -> Any:
        ask("SELECT set_config('app.tenant', %s, false)", self.scope["tenant"])
        ask("SET ROLE session_app")
        return super().get_queryset(**kwargs)


@pytest.fixture
def policy(observed: None) -> Iterator[None]:
    """Row-level security: rows whose names begin with the tenant's."""
    rendered.clear()
    execute(
        "CREATE ROLE session_app; GRANT SELECT ON project_item TO session_app;"
        "ALTER TABLE project_item ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY of_tenant ON project_item"
        " USING (starts_with(name, current_setting('app.tenant', true)))"
    )
    for name in ("a1", "b1", "a2"):
        Item.objects.create(name=name)
    yield
    execute(
        "DROP POLICY of_tenant ON project_item; ALTER TABLE project_item DISABLE ROW LEVEL SECURITY;"
        "DROP OWNED BY session_app; DROP ROLE session_app"
    )


def names(frame: Any) -> list[str]:
    return [row["name"] for row in frame["data"]["results"]]


@pytest.mark.parametrize("consumer", [ByHook, InQueryset])
async def test_row_level_security(connect: Any, policy: None, consumer: Any) -> None:
    """Each subscriber receives the rows that the policy shows for its own session, and no others."""
    sockets = [(tenant, await connect(consumer, tenant=tenant)) for tenant in "abab"]
    for tenant, socket in sockets:
        frame = await socket.ask("subscribe_list", request_id=1)
        assert names(frame) == {"a": ["a1", "a2"], "b": ["b1"]}[tenant]
        assert {row["session"] for row in frame["data"]["results"]} == {tenant}

    await run_sql("UPDATE project_item SET name = name || '!'")
    await run_sql("INSERT INTO project_item (name, rank) VALUES ('b2', 0)")

    for tenant, socket in sockets:
        expected = {"a": ["a1!", "a2!"], "b": ["b1!", "b2"]}[tenant]
        frames = [await socket.receive() for _ in expected]
        assert [frame["data"]["name"] for frame in frames] == expected
        assert {frame["data"]["session"] for frame in frames} == {tenant}
        assert await socket.has_nothing()
        if consumer is ByHook:
            listed = (await socket.ask("list", request_id=2))["data"]
            assert [row["name"] for row in listed] == expected


@pytest.mark.parametrize("consumer", [ByHook, InQueryset])
async def test_a_row_that_the_policy_hides(connect: Any, policy: None, consumer: Any) -> None:
    """A row is not there, comes and goes, as the policy says for the subscriber's session."""
    row = await Item.objects.aget(name="b1")
    socket = await connect(consumer, tenant="a")
    assert (await socket.subscribe(row.pk))["response_status"] == 404
    other = await connect(consumer, tenant="b")
    assert (await other.subscribe(row.pk))["response_status"] == 201

    await run_sql("UPDATE project_item SET name = 'b1!' WHERE id = %s", row.pk)
    assert (await other.receive())["data"]["name"] == "b1!"
    await run_sql("UPDATE project_item SET name = 'a3' WHERE id = %s", row.pk)
    assert (await other.receive())["action"] == "delete"


async def test_equal_settings_share(connect: Any, policy: None) -> None:
    """Subscriptions whose hook returns equal settings share a query and a serialization."""
    sockets = [await connect(ByHook, tenant="a") for _ in range(3)]
    for socket in sockets:
        await socket.ask("subscribe_list", request_id=1)
    rendered.clear()

    await run_sql("UPDATE project_item SET name = 'a1!' WHERE name = 'a1'")
    for socket in sockets:
        await socket.receive()

    assert len(rendered) == 1


class Setting(Seen):
    """Leaves a setting behind, for each row."""

    def get_session(self, item: Item) -> Any:
        before = super().get_session(item)
        ask("SELECT set_config('app.tenant', 'left behind', false)")
        return before


class InSerializer(Base):
    serializer_class = Setting


class Becoming(BasePermission):
    """Leaves a role behind."""

    def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        if action != "connect":
            ask("SET ROLE pg_monitor")
        return True


class InPermission(Base):
    permission_classes = [Becoming]


class Shadowing(Base):
    """Puts another table before the model's."""

    def get_queryset(self, **kwargs: Any) -> Any:
        ask("CREATE TEMP TABLE IF NOT EXISTS project_item AS SELECT * FROM public.project_item")
        ask("UPDATE pg_temp.project_item SET name = 'shadow'")
        return super().get_queryset(**kwargs)


class Opening(Base):
    """Leaves a transaction open that sees the table as it was."""

    def get_queryset(self, **kwargs: Any) -> Any:
        ask("BEGIN ISOLATION LEVEL REPEATABLE READ")
        ask("SELECT count(*) FROM project_item")
        return super().get_queryset(**kwargs)


@pytest.mark.parametrize("consumer", [InSerializer, InPermission, Shadowing, Opening, InQueryset])
async def test_nothing_reaches_others(
    connect: Any, policy: None, settings: Any, consumer: Any
) -> None:
    """What a consumer's hooks do to the session is not seen by the subscribers of another."""
    settings.PGOBSERVE = {"LOADER_THREADS": 1}
    odd = await connect(consumer, tenant="b")
    plain = await connect(Base)
    await odd.ask("subscribe_list", request_id=1)
    frame = await plain.ask("subscribe_list", request_id=1)
    assert names(frame) == ["a1", "b1", "a2"]

    for change in ("'!'", "'?'"):
        await run_sql(f"UPDATE project_item SET name = name || {change}")
        frames = [await plain.receive() for _ in range(3)]
        assert {frame["data"]["session"] for frame in frames} == {""}
    assert [frame["data"]["name"] for frame in frames] == ["a1!?", "b1!?", "a2!?"]


async def test_a_temporary_table_is_not_observed(connect: Any, policy: None) -> None:
    """A table that hooks put before the model's is looked at, and has no triggers."""
    socket = await connect(Shadowing)

    assert (await socket.ask("subscribe_list", request_id=1))["response_status"] == 503


async def test_object_permissions(connect: Any, policy: None) -> None:
    """Object permissions are asked in the session of the subscription."""

    class OfTenant(BasePermission):
        async def has_permission(self, **kwargs: Any) -> bool:
            return True

        def has_object_permission(self, scope: Any, instance: Any, **kwargs: Any) -> bool:
            found: Any = ask("SELECT current_setting('app.tenant', true)")
            return bool(found[0] == scope["tenant"])

    class Guarded(ByHook):
        permission_classes = [OfTenant]

    socket = await connect(Guarded, tenant="a")
    assert names(await socket.ask("subscribe_list", request_id=1)) == ["a1", "a2"]

    await run_sql("UPDATE project_item SET name = name || '!'")
    assert [(await socket.receive())["data"]["name"] for _ in range(2)] == ["a1!", "a2!"]


class BySchema(Base):
    def database_session(self, **kwargs: Any) -> Any:
        return {"search_path": f"tenant_{self.scope['tenant']}, public"}


class SchemaInQueryset(Base):
    def get_queryset(self, **kwargs: Any) -> Any:
        ask("SELECT set_config('search_path', %s, false)", f"tenant_{self.scope['tenant']}, public")
        return super().get_queryset(**kwargs)


@pytest.fixture
def schemas(transactional_db: None, transport: str) -> Iterator[None]:
    """The table in a schema for each tenant alone, with triggers there."""
    execute("ALTER TABLE project_item RENAME TO elsewhere")
    for tenant in "ab":
        execute(f"CREATE SCHEMA tenant_{tenant}")
        execute(f"CREATE TABLE tenant_{tenant}.project_item (LIKE elsewhere INCLUDING ALL)")
        execute(
            f"INSERT INTO tenant_{tenant}.project_item (id, name, rank) VALUES (1, %s, 0)",
            f"{tenant} one",
        )
        with connection.cursor() as cursor:
            cursor.execute(f"SET search_path = tenant_{tenant}, public")
        call_command("pgobserve", "install", "project.Item", verbosity=0)
        connection.close()
    yield
    for tenant in "ab":
        execute(f"DROP SCHEMA tenant_{tenant} CASCADE")
    execute("DROP SCHEMA IF EXISTS pgobserve CASCADE")
    execute("ALTER TABLE elsewhere RENAME TO project_item")


@pytest.mark.parametrize("consumer", [BySchema, SchemaInQueryset])
async def test_schema_per_tenant(connect: Any, schemas: None, consumer: Any) -> None:
    """Rows are looked for, read and followed in the schema of the subscriber's tenant."""
    sockets = [(tenant, await connect(consumer, tenant=tenant)) for tenant in "abab"]
    for tenant, socket in sockets:
        assert names(await socket.ask("subscribe_list", request_id=1)) == [f"{tenant} one"]

    for tenant in "ab":
        await run_sql(f"UPDATE tenant_{tenant}.project_item SET name = '{tenant} two'")

    for tenant, socket in sockets:
        assert (await socket.receive())["data"]["name"] == f"{tenant} two"
        assert await socket.has_nothing()


async def test_schemas_change_places(connect: Any, schemas: None) -> None:
    """
    A write is delivered although its schema has another name by the time of its commit.

    So the feed can't leave out a change because its payload names another schema.
    """
    socket = await connect(BySchema, tenant="a")
    assert names(await socket.ask("subscribe_list", request_id=1)) == ["a one"]
    swap = (
        "ALTER SCHEMA tenant_a RENAME TO tenant_c; ALTER SCHEMA tenant_b RENAME TO tenant_a;"
        "ALTER SCHEMA tenant_c RENAME TO tenant_b"
    )

    await run_sql(f"BEGIN; UPDATE tenant_b.project_item SET name = 'b two'; {swap}; COMMIT")

    assert (await socket.receive())["data"]["name"] == "b two"


async def test_tables_without_triggers(connect: Any, policy: None) -> None:
    """The triggers are looked for where the rows are read."""
    await run_sql("CREATE SCHEMA tenant_c")
    await run_sql("CREATE TABLE tenant_c.project_item (LIKE project_item INCLUDING ALL)")
    socket = await connect(BySchema, tenant="c")
    try:
        frame = await socket.ask("subscribe_list", request_id=1)
    finally:
        await socket.close()
        await run_sql("DROP SCHEMA tenant_c CASCADE")

    assert frame["response_status"] == 503


class Closing(Seen):
    """Closes the connection first, and looks at another row of the policy's then."""

    def get_session(self, item: Item) -> Any:
        connection.close()
        everything = [name for (name,) in Item.objects.order_by("id").values_list("name")]
        return [super().get_session(item), everything]


class ClosingByHook(ByHook):
    serializer_class = Closing


class ClosingInQueryset(InQueryset):
    serializer_class = Closing


@pytest.mark.parametrize("consumer", [ClosingByHook, ClosingInQueryset])
async def test_serializer_closes_the_connection(connect: Any, policy: None, consumer: Any) -> None:
    """On a new connection a serializer runs in the session of its subscriber, or its row is not shown."""
    socket = await connect(consumer, tenant="a")
    frame = await socket.ask("subscribe_list", request_id=1)
    if consumer is ClosingByHook:
        assert [row["session"] for row in frame["data"]["results"]] == [["a", ["a1", "a2"]]] * 2
    else:
        assert frame["response_status"] == 500, frame
    row = await Item.objects.aget(name="a1")
    frame = await socket.ask("subscribe_instance", request_id=2, pk=row.pk)
    assert frame["response_status"] == 201

    await run_sql("UPDATE project_item SET name = 'a3' WHERE name = 'a1'")
    while (frame := await socket.receive())["request_id"] != 2:
        pass
    if consumer is ClosingByHook:
        assert frame["data"]["session"] == ["a", ["a3", "a2"]]
    else:
        assert frame["response_status"] == 500, frame


class InSerializer(Base):
    def get_serializer(self, *args: Any, **kwargs: Any) -> Any:
        ask("SELECT set_config('app.tenant', %s, false)", self.scope["tenant"])
        return super().get_serializer(*args, **kwargs)


class InSerializerClass(Base):
    def get_serializer_class(self, **kwargs: Any) -> Any:
        ask("SELECT set_config('app.tenant', %s, false)", self.scope["tenant"])
        return super().get_serializer_class(**kwargs)


class InSerializerContext(Base):
    def get_serializer_context(self, **kwargs: Any) -> Any:
        ask("SELECT set_config('app.tenant', %s, false)", self.scope["tenant"])
        return super().get_serializer_context(**kwargs)


class Fetching(QuerySet[Item]):
    """Prepares the session just before its query runs."""

    tenant = ""

    def _clone(self) -> Any:
        made = super()._clone()  # type: ignore[misc]
        made.tenant = self.tenant
        return made

    def _fetch_all(self) -> None:
        if self._result_cache is None:  # type: ignore[has-type]
            ask("SELECT set_config('app.tenant', %s, false)", self.tenant)
        super()._fetch_all()  # type: ignore[misc]


class InFetching(Base):
    def get_queryset(self, **kwargs: Any) -> Any:
        queryset = Fetching(Item).order_by("id")
        queryset.tenant = self.scope["tenant"]
        return queryset


@pytest.fixture
def open_policy(observed: None) -> Iterator[None]:
    """A policy that hides nothing while no tenant is set, for another role than the feed's own."""
    rendered.clear()
    execute(
        "ALTER TABLE project_item ENABLE ROW LEVEL SECURITY;"
        "CREATE ROLE session_app; GRANT SELECT ON project_item TO session_app;"
        "CREATE POLICY of_tenant ON project_item"
        " USING (starts_with(name, coalesce(current_setting('app.tenant', true), '')))"
    )
    for name in ("a1", "b1", "a2"):
        Item.objects.create(name=name)
    yield
    execute(
        "DROP POLICY of_tenant ON project_item; ALTER TABLE project_item DISABLE ROW LEVEL SECURITY;"
        "DROP OWNED BY session_app; DROP ROLE session_app"
    )


class AsRole:
    """Reads as a role to which the policy applies."""

    def database_session(self, **kwargs: Any) -> Any:
        return {"role": "session_app"}


@pytest.mark.parametrize("only", [None, "keys", "count"])
@pytest.mark.parametrize(
    "consumer", [InSerializer, InSerializerClass, InSerializerContext, InFetching]
)
async def test_any_hook_may_prepare_the_session(
    connect: Any, open_policy: None, consumer: Any, only: Any
) -> None:
    """What `list` calls before its query runs prepares the session, whatever is wanted of the rows."""
    made = type(consumer.__name__, (AsRole, consumer), {})
    for tenant, number in (("a", 2), ("b", 1)):
        socket = await connect(made, tenant=tenant)
        frame = await socket.ask("subscribe_list", request_id=1, only=only)
        found = frame["data"].get("count") or len(frame["data"]["results"])
        assert found == number
        if only is None:
            assert all(name.startswith(tenant) for name in names(frame))


class Setting(AsRole, Base):
    """Its own statement sets a tenant."""

    queryset = Item.objects.order_by("id").annotate(
        tenant=RawSQL("set_config('app.tenant', 'b', false)", [])
    )


class Plain(AsRole, Base):
    pass


async def test_what_a_querysets_own_statement_sets(
    connect: Any, open_policy: None, settings: Any
) -> None:
    """It is undone before others are read, in the same piece of work too."""
    settings.PGOBSERVE = {"LOADER_THREADS": 1}
    setting, plain = await connect(Setting), await connect(Plain)
    for _ in range(2):
        await setting.ask("subscribe_list", request_id=1)
        frame = await plain.ask("subscribe_list", request_id=1)
        assert names(frame) == ["a1", "b1", "a2"]

    await run_sql("UPDATE project_item SET name = name || '!'")
    frames = [await plain.receive() for _ in range(3)]
    assert sorted(frame["data"]["name"] for frame in frames) == ["a1!", "a2!", "b1!"]


tenant_of_context: ContextVar[str] = ContextVar("tenant_of_context", default="")


def by_context(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
    """Prepare the session before each statement, as an execute wrapper of a project does it."""
    # Threads keep it for other tests.
    if tenant := tenant_of_context.get():
        context["connection"].connection.execute(
            "SELECT set_config('app.tenant', %s, false)", [tenant]
        )
    return execute(sql, params, many, context)


class InContext(AsRole, Base):
    async def connect(self) -> None:
        tenant_of_context.set(self.scope["tenant"])
        await super().connect()


@pytest.fixture
def wrapped() -> Iterator[None]:
    def wrap(connection: Any, **_: Any) -> None:
        if by_context not in connection.execute_wrappers:
            connection.execute_wrappers.append(by_context)

    connection_created.connect(wrap)
    yield
    connection_created.disconnect(wrap)


async def test_execute_wrappers_prepare_the_session(
    connect: Any, open_policy: None, wrapped: None
) -> None:
    """Rows are read as `list` reads them: within the execute wrappers, in the socket's context."""
    sockets = [(tenant, await connect(InContext, tenant=tenant)) for tenant in "ab"]
    for tenant, socket in sockets:
        frame = await socket.ask("subscribe_list", request_id=1)
        assert names(frame) == {"a": ["a1", "a2"], "b": ["b1"]}[tenant]
        hidden = await Item.objects.filter(name={"a": "b1", "b": "a1"}[tenant]).values("id").aget()
        assert (await socket.subscribe(hidden["id"]))["response_status"] == 404

    await run_sql("UPDATE project_item SET name = name || '!'")
    for tenant, socket in sockets:
        expected = {"a": ["a1!", "a2!"], "b": ["b1!"]}[tenant]
        assert [(await socket.receive())["data"]["name"] for _ in expected] == expected
        assert await socket.has_nothing()
