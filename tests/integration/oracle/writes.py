"""Random writes: SQL of a program that knows nothing of Django, and Django's ORM."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import Group, User
from django.db import connection, transaction

from tests.integration.oracle.models import Comment, Grant, Note, Paper, Place, Tag, Team
from tests.integration.oracle.permissions import GROUP
from tests.integration.oracle.tables import TENANTS

if TYPE_CHECKING:
    import random

#: Instants at which the day differs between the sockets' time zones.
INSTANTS = ("2026-01-01T12:00Z", "2026-01-01T20:00Z", "2026-01-02T03:00Z", "2026-01-02T20:00Z")

ROWS = 6

Write = Callable[["Writer"], None]
WRITES: list[tuple[int, Write]] = []


def write(often: int) -> Callable[[Write], Write]:
    """Register a write, to be drawn so often."""

    def register(function: Write) -> Write:
        WRITES.append((often, function))
        return function

    return register


class Writer:
    """
    Writes to the oracle's tables, by a seed.

    Attributes:
        said: What was written in this step.
        groups: What permissions ask may change.
        emptied: A table was truncated in this step.
    """

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.said: list[str] = []
        self.groups = True
        self.emptied = False
        self._number = 0

    def text(self, owner: Any = "") -> str:
        """Return a new text, by which its owner is recognized."""
        self._number += 1
        return f"{self.draw.choice('ab')}{owner}{self._number}"

    def sql(self, text: str, *params: Any) -> None:
        """Run SQL."""
        self.said.append(f"{text} {params}")
        with connection.cursor() as cursor:
            cursor.execute(text, params)

    def note(self) -> Any:
        """Return the key of a note, or one that is none."""
        keys = [*Note.objects.order_by("id").values_list("id", flat=True)]
        return self.draw.choice(keys) if keys else 0

    def user(self) -> User:
        return self.draw.choice([*User.objects.order_by("id")])

    def prepare(self) -> None:
        """Make the first rows."""
        for name in TENANTS:
            User.objects.create(username=name, is_staff=name == "carl")
        Group.objects.create(name=GROUP)
        for team in "xy":
            made = Team.objects.create(name=self.text(team))
            made.members.add(self.user())
            Tag.objects.create(name=self.text(team))
        for _ in range(ROWS):
            insert(self)
        for name in TENANTS:
            self.paper(name)
            for schema in ("public", f"oracle_{name}"):
                self.sql(f"INSERT INTO {schema}.oracle_place (name) VALUES (%s)", self.text(schema))
        Grant.objects.create(note_id=self.note(), user=self.user())
        self.said.clear()

    def paper(self, owner: str) -> None:
        self.sql("INSERT INTO oracle_paper (owner, text) VALUES (%s, %s)", owner, self.text(owner))

    def transact(self, *, groups: bool) -> None:
        """Write one transaction; ``groups`` says whether what permissions ask may change."""
        weights = [often for often, _ in WRITES]
        self.groups = groups
        with transaction.atomic():
            for _ in range(self.draw.randint(1, 3)):
                chosen = self.draw.choices(WRITES, weights)[0][1]
                self.said.append(chosen.__name__)
                chosen(self)
            if self.draw.random() < 0.1:
                self.said.append("rollback")
                transaction.set_rollback(True)
                return
        self.said.append("commit")


@write(4)
def insert(writer: Writer) -> None:
    owner = writer.user()
    note = Note.objects.create(
        owner=owner,
        team=writer.draw.choice([None, *Team.objects.order_by("id")]),
        title=writer.text(),
        secret=writer.text(owner.username),
        state=writer.draw.choice("yn"),
        due=writer.draw.choice(INSTANTS),
        weight=writer.draw.randint(0, 7),
    )
    Comment.objects.create(note=note, author=writer.user(), text=writer.text("comment"))


@write(4)
def update(writer: Writer) -> None:
    writer.sql(
        "UPDATE oracle_note SET title = %s, weight = %s WHERE id = %s",
        writer.text(),
        writer.draw.randint(0, 7),
        writer.note(),
    )


@write(2)
def update_state(writer: Writer) -> None:
    writer.sql(
        "UPDATE oracle_note SET state = %s, due = %s WHERE id = %s",
        writer.draw.choice("yn"),
        writer.draw.choice(INSTANTS),
        writer.note(),
    )


@write(2)
def update_all(writer: Writer) -> None:
    writer.sql("UPDATE oracle_note SET title = title || '!', state = %s", writer.draw.choice("yn"))


@write(4)
def change_owner(writer: Writer) -> None:
    owner = writer.user()
    writer.sql(
        "UPDATE oracle_note SET owner_id = %s, secret = %s WHERE id = %s",
        owner.pk,
        writer.text(owner.username),
        writer.note(),
    )


@write(2)
def change_unshown(writer: Writer) -> None:
    writer.sql("UPDATE oracle_note SET unshown = unshown + 1 WHERE id = %s", writer.note())


@write(2)
def save(writer: Writer) -> None:
    note = Note.objects.filter(pk=writer.note()).first()
    if note is not None:
        note.owner, note.weight = writer.user(), writer.draw.randint(0, 7)
        note.secret = writer.text(note.owner.username)
        note.save()


@write(1)
def bulk_update(writer: Writer) -> None:
    notes = [*Note.objects.order_by("id")[:3]]
    for note in notes:
        note.title, note.weight = writer.text(), writer.draw.randint(0, 7)
    Note.objects.bulk_update(notes, ["title", "weight"])


@write(1)
def bulk_create(writer: Writer) -> None:
    owners = [writer.user(), writer.user()]
    Note.objects.bulk_create(
        Note(owner=o, title=writer.text(), secret=writer.text(o.username), due=INSTANTS[0])
        for o in owners
    )


@write(2)
def delete(writer: Writer) -> None:
    Note.objects.filter(pk=writer.note()).delete()


@write(1)
def truncate(writer: Writer) -> None:
    if writer.draw.random() < 0.5:
        writer.emptied = True
        writer.sql("SET CONSTRAINTS ALL IMMEDIATE")
        writer.sql("TRUNCATE oracle_note CASCADE")
        for _ in range(ROWS):
            insert(writer)


@write(1)
def change_key(writer: Writer) -> None:
    key = writer.note()
    for table in ("comment", "grant", "note_tags"):
        writer.sql(f"DELETE FROM oracle_{table} WHERE note_id = %s", key)
    writer.sql("UPDATE oracle_note SET id = id + 1000 WHERE id = %s", key)


@write(2)
def comment(writer: Writer) -> None:
    note, author = writer.note(), writer.user()
    if note:
        Comment.objects.create(note_id=note, author=author, text=writer.text("comment"))


@write(2)
def change_comments(writer: Writer) -> None:
    keys = [*Comment.objects.order_by("id").values_list("id", flat=True)]
    if keys:
        key = writer.draw.choice(keys)
        if writer.draw.random() < 0.3:
            writer.sql("DELETE FROM oracle_comment WHERE id = %s", key)
        else:
            text = "UPDATE oracle_comment SET text = %s, author_id = %s WHERE id = %s"
            writer.sql(text, writer.text("comment"), writer.user().pk, key)


@write(2)
def tag(writer: Writer) -> None:
    note = Note.objects.filter(pk=writer.note()).first()
    if note is not None:
        note.tags.set(writer.draw.sample([*Tag.objects.order_by("id")], writer.draw.randint(0, 2)))


@write(1)
def rename_related(writer: Writer) -> None:
    table = writer.draw.choice(["team", "tag"])
    writer.sql(f"UPDATE oracle_{table} SET name = %s WHERE id %% 2 = 1", writer.text())


@write(2)
def change_team(writer: Writer) -> None:
    team = writer.draw.choice([*Team.objects.order_by("id")])
    writer.sql("UPDATE oracle_note SET team_id = %s WHERE id = %s", team.pk, writer.note())


@write(2)
def change_members(writer: Writer) -> None:
    team = writer.draw.choice([*Team.objects.order_by("id")])
    user = writer.user()
    if writer.draw.random() < 0.5:
        team.members.add(user)
    else:
        team.members.remove(user)


@write(3)
def grant(writer: Writer) -> None:
    note, user = writer.note(), writer.user()
    if writer.draw.random() < 0.4:
        writer.sql("DELETE FROM oracle_grant WHERE user_id = %s", user.pk)
    elif note:
        Grant.objects.create(note_id=note, user=user)


@write(3)
def change_group(writer: Writer) -> None:
    """Permissions that ask are asked when a row changes, so that all rows do."""
    if not writer.groups:
        return
    user, group = writer.user(), Group.objects.get(name=GROUP)
    if user.groups.exists():
        user.groups.clear()
    else:
        user.groups.add(group)
    writer.said.append(f"{user} in group: {user.groups.exists()}")
    writer.sql("UPDATE oracle_note SET unshown = unshown + 1")


@write(3)
def change_papers(writer: Writer) -> None:
    keys = [*Paper.objects.order_by("id").values_list("id", flat=True)]
    name, what = writer.draw.choice(TENANTS), writer.draw.random()
    if what < 0.3 or not keys:
        writer.paper(name)
    elif what < 0.5:
        writer.sql("DELETE FROM oracle_paper WHERE id = %s", writer.draw.choice(keys))
    else:
        text = "UPDATE oracle_paper SET owner = %s, text = %s WHERE id = %s"
        writer.sql(text, name, writer.text(name), writer.draw.choice(keys))


@write(3)
def change_places(writer: Writer) -> None:
    schema = writer.draw.choice(["public", *(f"oracle_{tenant}" for tenant in TENANTS)])
    what = writer.draw.random()
    if what < 0.2:
        writer.sql(f"INSERT INTO {schema}.oracle_place (name) VALUES (%s)", writer.text(schema))
    elif what < 0.3:
        writer.sql(
            f"DELETE FROM {schema}.oracle_place WHERE id = (SELECT max(id) FROM {schema}.oracle_place)"
        )
    else:
        writer.sql(f"UPDATE {schema}.oracle_place SET name = %s", writer.text(schema))


def keys_of(model: Any) -> list[Any]:
    """Return the keys of all rows of a model, of all schemas, and one that there is not."""
    with connection.cursor() as cursor:
        schemas = ["public"]
        if model is Place:
            schemas += [f"oracle_{tenant}" for tenant in TENANTS]
        tables = (f"SELECT id FROM {schema}.{model._meta.db_table}" for schema in schemas)
        cursor.execute(" UNION ".join(tables) + " ORDER BY id")
        return [*(key for (key,) in cursor.fetchall()), 999_999]
