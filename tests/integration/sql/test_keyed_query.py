"""A queryset compiled once and run by key finds what the queryset itself would find."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from unittest import mock

import psycopg
import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import OperationalError, ProgrammingError, connection, models
from django.db.models import Count, Exists, F, OuterRef, Prefetch, Q, Value, Window
from django.db.models.functions import Concat, Lower, Now, RowNumber
from django.test.utils import CaptureQueriesContext

from pgobserve.errors import ConfigurationError
from pgobserve.hub.snapshot import Snapshot
from pgobserve.sql import keyed_query as statement_module
from pgobserve.sql.keyed_query import PREPARE_AFTER, KeyedQuery, fetch_many
from pgobserve.sql.keys import identity_for
from tests.project import shapes
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.conftest import Writer

pytestmark = pytest.mark.usefixtures("transactional_db")

ODD = ["", "%", "%s", "%%s", "%(a)s", "'", "''", '"', "\\", "\\'", "{}", "\n", "é\U0001f600", "$1"]


def fetch(queryset: Any, keys: list[Any]) -> dict[Any, Any]:
    """Return the rows with some keys, by their keys as the ORM has them."""
    texts = [identity_for(queryset.model, key, connection) for key in keys]
    found = KeyedQuery(queryset, connection).fetch(texts, connection)[1]
    return {row.pk: row for row in found.values()}


@pytest.fixture
def items() -> list[Item]:
    """Five rows, ranked 0 to 4."""
    return Item.objects.bulk_create([Item(name=f"item {rank}", rank=rank) for rank in range(5)])


@pytest.fixture
def make() -> Iterator[Callable[..., None]]:
    """Make the tables of models that Django does not manage."""
    made: list[type[models.Model]] = []

    def make(*wanted: type[models.Model]) -> None:
        for model in wanted:
            with connection.schema_editor() as editor:
                editor.create_model(model)
            made.append(model)

    yield make
    for model in reversed(made):
        with connection.schema_editor() as editor:
            editor.delete_model(model)


def test_plain(items: list[Item]) -> None:
    """Rows are found by key: those that are there, each once, as instances that Django loaded."""
    found = fetch(Item.objects.all(), [items[3].pk, items[1].pk, items[1].pk, 0])

    assert found == {items[3].pk: items[3], items[1].pk: items[1]}
    instance = found[items[3].pk]
    assert (instance.name, instance.rank) == ("item 3", 3)
    assert not instance._state.adding
    assert instance._state.db == "default"


def test_filtered(items: list[Item]) -> None:
    """A row that the queryset does not contain is not found."""
    keys = [item.pk for item in items]

    assert set(fetch(Item.objects.filter(rank__gt=2), keys)) == {items[3].pk, items[4].pk}
    assert set(fetch(Item.objects.exclude(rank__in=[0, 1]).filter(rank__lt=3), keys)) == {
        items[2].pk
    }


@pytest.mark.parametrize("text", ODD)
def test_literals(text: str) -> None:
    """Any text can stand in a filter: percent signs, quotes and backslashes included."""
    item, _ = Item.objects.create(name=text), Item.objects.create(name="another")
    keys = list(Item.objects.values_list("pk", flat=True))

    assert set(fetch(Item.objects.filter(name=text), keys)) == {item.pk}
    assert item.pk in fetch(Item.objects.filter(name__contains=text), keys)
    shown = fetch(Item.objects.annotate(said=Concat(Value(text), "name")).filter(name=text), keys)
    assert shown[item.pk].said == text + text


def test_literals_of_many_types(make: Callable[..., None]) -> None:
    """Filters by dates, decimals, UUIDs, lists, JSON and moments mean what they mean to the ORM."""
    make(shapes.Tag, shapes.Wide, shapes.MomentKey, shapes.UuidKey, shapes.AmountKey)
    moment = datetime.datetime(
        2024, 7, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2))
    )
    shapes.MomentKey.objects.create(id=moment)
    code = uuid.uuid4()
    shapes.UuidKey.objects.create(id=code)
    shapes.AmountKey.objects.create(id=Decimal("1.50"))
    shapes.Wide.objects.create(id=1, facts={"a%": ["'", None, 1.5]})

    assert fetch(shapes.MomentKey.objects.filter(id__gte=moment, id__year=2024), [moment])
    assert not fetch(shapes.MomentKey.objects.filter(id__gt=moment), [moment])
    assert fetch(shapes.UuidKey.objects.filter(id__in=[code, uuid.uuid4()]), [code])
    assert fetch(shapes.AmountKey.objects.filter(id__range=(1, Decimal("1.5"))), [Decimal("1.5")])
    assert fetch(shapes.Wide.objects.filter(facts={"a%": ["'", None, 1.5]}), [1])
    assert fetch(shapes.Wide.objects.filter(facts__contains={"a%": ["'"]}), [1])
    assert not fetch(shapes.Wide.objects.filter(facts__has_key="b%"), [1])


def test_json(make: Callable[..., None]) -> None:
    """A JSON column, and a part of one, arrive as Python has them."""
    make(shapes.Tag, shapes.Wide)
    shapes.Wide.objects.create(id=1, facts={"a": [1, {"b": None}]})
    shapes.Wide.objects.create(id=2, facts=None)
    found = fetch(shapes.Wide.objects.annotate(part=F("facts__a")), [1, 2])

    assert (found[1].facts, found[1].part) == ({"a": [1, {"b": None}]}, [1, {"b": None}])
    assert found[2].facts is None


def test_columns_without_equality(writer: Writer) -> None:
    """Columns of types that can't be compared, json and xml, are read, also for many at a time."""
    writer.rows("CREATE TABLE project_raw (id bigint PRIMARY KEY, j json, x xml, p point)")
    try:
        writer.rows("INSERT INTO project_raw VALUES (1, '{\"a\": 1}', NULL, '(1,2)')")
        for column in ("j", "x", "p"):
            queryset = shapes.Raw.objects.annotate(more=models.expressions.RawSQL(column, ()))
            statement = KeyedQuery(queryset, connection)
            other = KeyedQuery(queryset.filter(id__gt=0), connection)
            one, two = fetch_many([(statement, ["1"]), (other, ["1"])], connection).instances
            assert str(one["1"].more) == str(two["1"].more)
    finally:
        writer.rows("DROP TABLE project_raw")


def test_annotated(items: list[Item]) -> None:
    """Annotations, aggregates and subqueries come with the instance."""
    keys = [item.pk for item in items]
    lower = Item.objects.filter(rank__lt=OuterRef("rank"))
    queryset = Item.objects.annotate(lower=Lower("name"), any_lower=Exists(lower), n=Count("pk"))
    found = fetch(queryset, keys)

    assert [(i.lower, i.any_lower, i.n) for i in (found[key] for key in keys[:2])] == [
        ("item 0", False, 1),
        ("item 1", True, 1),
    ]


def test_filtered_aggregate() -> None:
    """A condition on an aggregate, HAVING, holds."""
    one, two = Group.objects.create(name="one"), Group.objects.create(name="two")
    user = User.objects.create(username="u")
    user.groups.add(one)

    queryset = Group.objects.annotate(n=Count("user")).filter(n__gt=0)
    assert set(fetch(queryset, [one.pk, two.pk])) == {one.pk}


def test_deferred(items: list[Item]) -> None:
    """Deferred fields stay deferred, and load when they are asked for."""
    pk = items[2].pk
    for queryset in (Item.objects.only("name"), Item.objects.defer("rank")):
        found = fetch(queryset, [pk])[pk]
        assert found.get_deferred_fields() == {"rank"}
        assert found.rank == 2


def test_select_related() -> None:
    """Related rows come in the same query, missing ones as None, nested ones too."""
    content_type = ContentType.objects.get_for_model(Item)
    permission = Permission.objects.create(name="x", codename="x", content_type=content_type)
    statement = KeyedQuery(Permission.objects.select_related("content_type"), connection)
    _, found = statement.fetch([str(permission.pk)], connection)

    with CaptureQueriesContext(connection) as queries:
        assert found[str(permission.pk)].content_type == content_type
    assert len(queries) == 0
    assert not statement.bare
    assert KeyedQuery(Permission.objects.all(), connection).bare


def test_prefetch() -> None:
    """Prefetched rows are there, in a query for all rows and not for each."""
    groups = [Group.objects.create(name=name) for name in "abc"]
    users = [User.objects.create(username=f"u{n}") for n in range(3)]
    for user in users:
        user.groups.set(groups)
    only_b = Prefetch("groups", Group.objects.filter(name="b"), to_attr="only_b")
    queryset = User.objects.prefetch_related("user_permissions", only_b)

    with CaptureQueriesContext(connection) as queries:
        found = fetch(queryset, [user.pk for user in users])
        assert [[g.name for g in user.only_b] for user in found.values()] == [["b"]] * 3
        assert [list(user.user_permissions.all()) for user in found.values()] == [[]] * 3
    assert len(queries) == 2  # those of the prefetches; the rows are not read by Django's cursor
    assert not KeyedQuery(queryset, connection).bare


def test_none(items: list[Item]) -> None:
    """The empty queryset, and one that can't match, find nothing and have a snapshot."""
    for queryset in (Item.objects.none(), Item.objects.filter(pk__in=[])):
        snapshot, found = KeyedQuery(queryset, connection).fetch([str(items[0].pk)], connection)
        assert found == {}
        assert isinstance(snapshot, Snapshot)


def test_everything(items: list[Item]) -> None:
    """A condition that always holds is none."""
    assert len(fetch(Item.objects.filter(~Q(pk__in=[])), [items[0].pk])) == 1


def test_distinct() -> None:
    """A row that a join multiplies is found once, with distinct and without."""
    user = User.objects.create(username="u")
    user.groups.set([Group.objects.create(name=name) for name in "ab"])
    queryset = User.objects.filter(groups__name__in=["a", "b"])

    for each in (queryset, queryset.distinct()):
        assert list(fetch(each, [user.pk])) == [user.pk]


@pytest.mark.parametrize(
    "queryset",
    [
        lambda: Item.objects.order_by("rank", "-pk").distinct("rank"),
        lambda: Item.objects.annotate(n=Window(RowNumber(), order_by="pk")),
        lambda: Item.objects.annotate(n=Window(RowNumber(), order_by="pk")).filter(n=1),
    ],
)
def test_rows_that_depend_on_others(items: list[Item], queryset: Any) -> None:
    """What has other rows depend on the batch they are read in is refused, with what to do."""
    with pytest.raises(ConfigurationError, match=r"depend on other rows.* Use a subquery"):
        KeyedQuery(queryset(), connection)


def test_ordered(items: list[Item]) -> None:
    """The order of a queryset costs nothing: rows are looked up by key."""
    statement = KeyedQuery(Item.objects.order_by("-rank"), connection)

    assert "ORDER BY" not in statement.text
    assert len(statement.fetch([str(items[0].pk)], connection)[1]) == 1


@pytest.mark.parametrize(
    "queryset",
    [
        Item.objects.values(),
        Item.objects.values_list("pk"),
        Item.objects.values_list("pk", flat=True),
    ],
)
def test_no_instances(queryset: Any) -> None:
    """A queryset that yields no instances is refused, with what to do about it."""
    with pytest.raises(ConfigurationError, match=r"project\.Item yields no model instances"):
        KeyedQuery(queryset, connection)


@pytest.mark.parametrize(
    "queryset",
    [
        lambda: Item.objects.all()[:5],
        lambda: Item.objects.order_by("pk")[1:],
        lambda: Item.objects.filter(rank=1).union(Item.objects.filter(rank=2)),
        lambda: Item.objects.filter(rank=1).difference(Item.objects.filter(rank=2)),
    ],
    ids=["limit", "offset", "union", "difference"],
)
def test_not_by_key(queryset: Callable[[], Any]) -> None:
    """A queryset whose rows can't be looked up by key is refused, with what to do about it."""
    with pytest.raises(ConfigurationError, match=r"project\.Item is sliced.*Use filter\(\)"):
        KeyedQuery(queryset(), connection)


def test_raw_queryset() -> None:
    """A raw queryset is refused."""
    with pytest.raises(ConfigurationError, match="Item"):
        KeyedQuery(Item.objects.raw("SELECT * FROM project_item"), connection)  # type: ignore[arg-type]


def test_inheritance(make: Callable[..., None]) -> None:
    """A child's row comes with its parents' columns."""
    make(shapes.Place, shapes.Restaurant, shapes.Pizzeria)
    shapes.Pizzeria.objects.create(id=7, name="Da Ada", stars=2, ovens=3)
    shapes.Restaurant.objects.create(id=8, name="Bob's")
    found = fetch(shapes.Pizzeria.objects.filter(name__contains="A"), [7, 8])

    assert [(p.pk, p.name, p.stars, p.ovens) for p in found.values()] == [(7, "Da Ada", 2, 3)]
    assert set(fetch(shapes.Place.objects.all(), [7, 8, 9])) == {7, 8}


def test_composite(make: Callable[..., None]) -> None:
    """Rows with a composite key are found by both parts together."""
    make(shapes.PairKey)
    for left, right in (("a", 1), ("a", 2), ("b", 1), ('",{', 2)):
        shapes.PairKey.objects.create(left=left, right=right)
    found = fetch(shapes.PairKey.objects.all(), [("a", 2), ("b", 1), ("b", 2), ('",{', 2)])

    assert set(found) == {("a", 2), ("b", 1), ('",{', 2)}


def test_odd_names(make: Callable[..., None]) -> None:
    """Names with blanks, percent signs, braces and quotes are no hindrance."""
    for model in (shapes.MixedCase, shapes.Quoted, shapes.LongName):
        make(model)
        model._default_manager.create(id=1, name="x")
        statement = KeyedQuery(model._default_manager.filter(name="x"), connection)
        assert set(statement.fetch(["1", "2"], connection)[1]) == {"1"}


def test_percent_in_sql(items: list[Item]) -> None:
    """A doubled percent sign in SQL that the project wrote is one, as with the ORM."""
    Item.objects.create(name="other")
    keys = list(Item.objects.values_list("pk", flat=True))
    for condition, params in (("name LIKE 'it%%'", []), ("name LIKE 'it%%' AND rank < %s", [3])):
        queryset = Item.objects.extra(where=[condition], params=params)
        assert set(fetch(queryset, keys)) == {item.pk for item in queryset}
        assert len(queryset) == (3 if params else 5)


def test_extra(items: list[Item]) -> None:
    """What extra() adds is kept."""
    queryset = Item.objects.extra(select={"twice": "rank * %s"}, select_params=[2])

    assert fetch(queryset, [items[3].pk])[items[3].pk].twice == 6


# Texts


def test_equal_querysets_have_equal_texts() -> None:
    """The text identifies the queryset: literals are part of it, keys are not."""

    def text(queryset: Any) -> str:
        return KeyedQuery(queryset, connection).text

    assert text(Item.objects.filter(rank=1)) == text(Item.objects.all().filter(rank=1))
    assert text(Item.objects.filter(rank=1)) != text(Item.objects.filter(rank=2))
    assert text(Item.objects.filter(name="1")) != text(Item.objects.filter(name="1 "))
    assert text(Item.objects.filter(name="%s")) != text(Item.objects.filter(name="%%s"))
    assert text(Item.objects.all()) != text(Item.objects.none())


# Snapshots


def test_snapshot(items: list[Item], writer: Writer) -> None:
    """The snapshot is that of the read: it sees what is committed, not what is in progress."""
    statement = KeyedQuery(Item.objects.all(), connection)
    with writer.connection.transaction():
        (row,) = writer.rows("SELECT pg_current_xact_id()::text")
        writer.rows("UPDATE project_item SET name = 'new'")
        before, found = statement.fetch([str(items[0].pk)], connection)
        assert (found[str(items[0].pk)].name, before.sees(int(row[0]))) == ("item 0", False)
    after, found = statement.fetch([str(items[0].pk)], connection)

    assert (found[str(items[0].pk)].name, after.sees(int(row[0]))) == ("new", True)


def test_snapshot_is_the_servers(writer: Writer) -> None:
    """The snapshot, read and asked, agrees with the server's own about every transaction."""
    statement = KeyedQuery(Item.objects.all(), connection)
    with writer.connection.transaction():
        writer.rows("SELECT pg_current_xact_id()")
        Item.objects.create(name="later")
        snapshot, found = statement.fetch([], connection)
        assert found == {}
        around = range(snapshot.xmin - 2, snapshot.xmax + 3)
        query = "SELECT pg_visible_in_snapshot(x::xid8, %s::pg_snapshot) FROM unnest(%s::text[]) x"
        with connection.cursor() as cursor:
            text = str(snapshot).partition("@")[0]
            cursor.execute(query, [text, [str(xid) for xid in around]])
            assert [row[0] for row in cursor.fetchall()] == [snapshot.sees(xid) for xid in around]
    assert snapshot.in_progress


# Many at a time


def test_many(items: list[Item]) -> None:
    """One query answers for many statements of one shape, each with its keys."""
    keys = [str(item.pk) for item in items]
    wanted = [
        (KeyedQuery(Item.objects.filter(rank__gte=rank), connection), keys[: rank + 2])
        for rank in range(4)
    ]
    assert len({statement.shape for statement, _ in wanted}) == 1
    read = fetch_many(wanted, connection)
    snapshot, answers = read.snapshot, read.instances

    assert [[i.rank for i in sorted(a.values(), key=lambda i: i.rank)] for a in answers] == [
        [0, 1],
        [1, 2],
        [2, 3],
        [3, 4],
    ]
    assert answers[0][keys[1]] == answers[1][keys[1]]
    assert isinstance(snapshot, Snapshot)


def read_by(querysets: list[Any], keys: list[list[Any]]) -> tuple[list[list[Any]], list[str]]:
    """Read for many at once; return the keys that each has, and the queries that were run."""
    ran: list[str] = []
    run = statement_module._run

    def note(text: str, *args: Any, **kwargs: Any) -> Any:
        ran.append(text)
        return run(text, *args, **kwargs)

    wanted = [
        (KeyedQuery(queryset, connection), own)
        for queryset, own in zip(querysets, keys, strict=True)
    ]
    with mock.patch.object(statement_module, "_run", note):
        answers = fetch_many(wanted, connection).instances
    return [sorted(answer) for answer in answers], ran


def test_many_users(items: list[Item]) -> None:
    """Querysets that differ in a number only are planned once, each with keys of its own."""
    keys = [str(item.pk) for item in items]
    percent = [Item.objects.filter(rank=rank, name__contains="%") for rank in range(3)]
    assert read_by(percent, [keys] * 3)[0] == [[], [], []]
    found, ran = read_by(
        [Item.objects.filter(rank__gte=rank, name__startswith="item") for rank in range(4)],
        [keys, keys, keys[:2], keys[3:4]],
    )

    assert found == [keys, keys[1:], [], keys[3:4]]
    assert len(ran) == 1
    assert ran[0].count('FROM "project_item"') == 1
    assert "LATERAL" in ran[0]


def test_many_users_by_name(items: list[Item]) -> None:
    """What differs in a text is asked for one by one in one query: a text may mean any type."""
    keys = [str(item.pk) for item in items]
    names = ["item 1", "item 3", "'", "%s"]
    found, ran = read_by([Item.objects.filter(name=name) for name in names], [keys] * 4)

    assert found == [[keys[1]], [keys[3]], [], []]
    assert len(ran) == 1
    assert "LATERAL" not in ran[0]


def test_many_share_an_instance(items: list[Item]) -> None:
    """A row with the same values is one instance for all who see it; another one is another."""
    querysets = [Item.objects.filter(rank__gte=0), Item.objects.filter(rank__gte=-1)]
    wanted = [(KeyedQuery(queryset, connection), [str(items[0].pk)]) for queryset in querysets]
    one, two = fetch_many(wanted, connection).instances
    assert one[str(items[0].pk)] is two[str(items[0].pk)]

    marked = [queryset.annotate(mark=Value(n)) for n, queryset in enumerate(querysets)]
    wanted = [(KeyedQuery(queryset, connection), [str(items[0].pk)]) for queryset in marked]
    one, two = fetch_many(wanted, connection).instances

    assert (one[str(items[0].pk)].mark, two[str(items[0].pk)].mark) == (0, 1)


def test_many_typed_keys(make: Callable[..., None]) -> None:
    """Keys that are no numbers are told apart in a list as well."""
    make(shapes.UuidKey)
    keys = sorted(str(shapes.UuidKey.objects.create(id=uuid.uuid4()).pk) for _ in range(3))
    found, ran = read_by(
        [shapes.UuidKey.objects.exclude(pk=key) for key in keys], [keys, keys[:1], keys[1:2]]
    )

    assert found == [keys[1:], keys[:1], keys[1:2]]
    assert "LATERAL" in ran[0]


def test_many_without_rows(items: list[Item]) -> None:
    """If none of many finds anything, each has its empty answer and all have the snapshot."""
    statements = [KeyedQuery(Item.objects.none(), connection) for _ in range(3)]
    read = fetch_many([(each, [str(items[0].pk)]) for each in statements], connection)
    snapshot, answers = read.snapshot, read.instances

    assert answers == [{}, {}, {}]
    assert isinstance(snapshot, Snapshot)


def test_many_with_prefetches_of_their_own() -> None:
    """Each of many gets the rows that its own prefetch finds."""
    user = User.objects.create(username="u")
    user.groups.set([Group.objects.create(name=name) for name in "ab"])
    wanted = []
    for name in "ab":
        lookup = Prefetch("groups", Group.objects.filter(name=name), to_attr="some")
        wanted.append(
            (KeyedQuery(User.objects.prefetch_related(lookup), connection), [str(user.pk)])
        )
    answers = fetch_many(wanted, connection).instances

    assert [[g.name for g in answer[str(user.pk)].some] for answer in answers] == [["a"], ["b"]]


def test_other_shapes(items: list[Item]) -> None:
    """Statements of other models, or with other columns, have another shape."""
    querysets = [Item.objects.all(), Item.objects.only("name"), Group.objects.all()]
    querysets.append(Item.objects.annotate(more=Now()))
    shapes_found = [KeyedQuery(queryset, connection).shape for queryset in querysets]

    assert len(set(shapes_found)) == 4


# Prepared statements


def prepared() -> list[str]:
    """Return what is prepared in Django's session."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        return [row[0] for row in cursor.fetchall()]


def test_prepared(items: list[Item]) -> None:
    """A statement that is used again is prepared; what Django runs itself is not."""
    statement = KeyedQuery(Item.objects.filter(rank__gte=0), connection)
    for _ in range(PREPARE_AFTER + 2):
        statement.fetch([str(items[0].pk)], connection)
        list(Item.objects.all())

    assert len([text for text in prepared() if "project_item" in text]) == 1


def test_many_is_not_prepared(items: list[Item]) -> None:
    """A query for many is another one each time: to keep it prepared would only cost memory."""
    wanted = [
        (KeyedQuery(Item.objects.filter(rank__gte=rank), connection), [str(items[0].pk)])
        for rank in range(3)
    ]
    for _ in range(PREPARE_AFTER + 6):
        fetch_many(wanted, connection)

    assert prepared() == []


def test_never_prepared_behind_a_pool(items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where server-side cursors are disabled, for a pool, nothing is prepared."""
    connection.close()
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
    statement = KeyedQuery(Item.objects.all(), connection)
    for _ in range(PREPARE_AFTER + 3):
        statement.fetch([str(items[0].pk)], connection)

    assert prepared() == []
    connection.close()


def test_altered_under_a_prepared_statement(items: list[Item], writer: Writer) -> None:
    """A table that is altered meanwhile is read all the same, in a new session."""
    statement = KeyedQuery(Item.objects.all(), connection)
    for _ in range(PREPARE_AFTER + 2):
        statement.fetch([str(items[0].pk)], connection)
    writer.rows("ALTER TABLE project_item ALTER COLUMN name TYPE text")
    try:
        for _ in range(PREPARE_AFTER + 2):
            _, found = statement.fetch([str(items[0].pk)], connection)
            assert found[str(items[0].pk)].name == "item 0"
    finally:
        writer.rows("ALTER TABLE project_item ALTER COLUMN name TYPE varchar(200)")


def test_session_forgot_its_prepared_statements(items: list[Item]) -> None:
    """A session that lost what was prepared, as behind a pool, is left for a new one."""
    statement = KeyedQuery(Item.objects.all(), connection)
    for _ in range(PREPARE_AFTER + 2):
        statement.fetch([str(items[0].pk)], connection)
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")
    _, found = statement.fetch([str(items[0].pk)], connection)

    assert set(found) == {str(items[0].pk)}


def test_django_goes_on_as_before(items: list[Item]) -> None:
    """Django's own cursors on the same connection are none the wiser."""
    statement = KeyedQuery(Item.objects.all(), connection)
    for _ in range(PREPARE_AFTER + 2):
        statement.fetch([str(items[0].pk)], connection)

    assert Item.objects.filter(name__contains="%").count() == 0
    assert Item.objects.get(pk=items[0].pk) == items[0]
    assert isinstance(connection.connection, psycopg.Connection)


# Errors


def test_errors_are_djangos(items: list[Item], writer: Writer) -> None:
    """Errors are Django's, as the ORM raises them, and the connection serves on."""
    statement = KeyedQuery(Item.objects.all(), connection)
    writer.rows("ALTER TABLE project_item RENAME COLUMN rank TO ranked")
    try:
        with pytest.raises(ProgrammingError):
            statement.fetch([str(items[0].pk)], connection)
    finally:
        writer.rows("ALTER TABLE project_item RENAME COLUMN ranked TO rank")

    assert set(statement.fetch([str(items[0].pk)], connection)[1]) == {str(items[0].pk)}


def test_terminated(items: list[Item], writer: Writer) -> None:
    """A session that was terminated is an OperationalError."""
    statement = KeyedQuery(Item.objects.all(), connection)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    assert writer.rows("SELECT pg_terminate_backend(%s, 20000)", pid) == [(True,)]

    with pytest.raises(OperationalError):
        statement.fetch([str(items[0].pk)], connection)
    connection.close()
    assert set(statement.fetch([str(items[0].pk)], connection)[1]) == {str(items[0].pk)}
