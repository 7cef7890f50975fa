"""
The tables whose events are events of a model: its own, its parents' and its many-to-many tables.

A transaction's events on all of them become one for each row of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db import DEFAULT_DB_ALIAS, connections

from pgobserve.dependencies.relations import Through, throughs_of
from pgobserve.sql.keys import key_of, text_for
from pgobserve.triggers.registry import canonical

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from django.db.models import Field, Model

    from pgobserve.outbox.event import Event

    Pair = tuple[Model | None, Model | None]


@dataclass(frozen=True, slots=True)
class EventTables:
    """
    The tables whose changes are events of a model, which may be a proxy.

    The changes of its own table are recorded under the label of ``own``.
    """

    model: type[Model]
    own: type[Model]
    parents: tuple[type[Model], ...]
    throughs: tuple[Through, ...]

    @property
    def models(self) -> tuple[type[Model], ...]:
        """The models under whose labels events are recorded."""
        throughs = (each.model for each in self.throughs)
        return tuple(dict.fromkeys((self.own, *self.parents, *throughs)))

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(model._meta.label_lower for model in self.models)

    def rows(self, events: Sequence[Event], alias: str) -> Iterator[Pair]:
        """
        Yield the rows of the model that a transaction changed, before and after.

        ``events`` are all of the transaction. What they don't contain is read from the database ``alias``.
        """
        own = self.own._meta.label_lower
        pairs: dict[Hashable, Pair] = {
            _key(event.instance): (self._cast(event.old, alias), self._cast(event.new, alias))
            for event in events
            if event.label == own
        }
        for parent in self.parents:
            label = parent._meta.label_lower
            self._add_parents(pairs, parent, [e for e in events if e.label == label], alias)
        for through in self.throughs:
            label = through.model._meta.label_lower
            self._add_owners(pairs, through, [e for e in events if e.label == label], alias)
        yield from pairs.values()

    def _cast(self, instance: Model | None, alias: str) -> Model | None:
        """Return a row as an instance of the model, a proxy or another model of the table."""
        if instance is None or type(instance) is self.model:
            return instance
        return _made(self.model, instance.__dict__, alias)

    def _add_parents(
        self, pairs: dict[Hashable, Pair], parent: type[Model], events: list[Event], alias: str
    ) -> None:
        link = self.model._meta.get_ancestor_link(parent)
        assert link is not None  # noqa: S101 (it is a parent)
        children = {
            _text(link, row): key for key, pair in pairs.items() for row in pair if row is not None
        }
        of = [(_key(event.instance), event) for event in events]
        alone = [event.key for key, event in of if key not in children and event.old and event.new]
        rows = self.model._base_manager.using(alias).filter(**{f"{link.name}__in": alone})
        current = {_text(link, row): row for row in (rows if alone else ())}
        for key, event in of:
            if key in children:
                old, new = pairs[children[key]]
                pairs[children[key]] = (_with(old, event.old, alias), _with(new, event.new, alias))
            elif key in current:
                row = current[key]
                pairs[_key(row)] = (_with(row, event.old, alias), row)

    def _add_owners(
        self, pairs: dict[Hashable, Pair], through: Through, events: list[Event], alias: str
    ) -> None:
        source: Any = through.model._meta.get_field(through.attname)
        target: Any = self.model._meta.get_field(through.target)
        values = {
            _text(source, row): getattr(row, through.attname)
            for event in events
            for row in (event.old, event.new)
            if row is not None
        }
        for pair in pairs.values():
            for row in pair:
                if row is not None:
                    values.pop(_text(target, row), None)
        if values:
            owners = self.model._base_manager.using(alias)
            for owner in owners.filter(**{f"{through.target}__in": [*values.values()]}):
                pairs[_key(owner)] = (owner, owner)


def _text(field: Field[Any, Any], row: Model) -> str | None:
    """Return the text of a row's value, for comparisons; None if there is none."""
    value = getattr(row, field.attname)
    return None if value is None else text_for(field, value, _connection(row))


def _connection(row: Model) -> Any:
    return connections[row._state.db or DEFAULT_DB_ALIAS]


def _key(row: Model) -> str:
    return key_of(row, _connection(row))


@lru_cache(maxsize=1024)
def sources_of(model: type[Model], *, many_to_many: bool) -> EventTables:
    """Return the tables whose changes are events of a model, those of its many-to-many fields on demand."""
    return EventTables(
        model,
        canonical(model),
        tuple(dict.fromkeys(canonical(each) for each in model._meta.get_parent_list())),
        tuple(throughs_of(model)) if many_to_many else (),
    )


def _with(row: Model | None, part: Model | None, alias: str) -> Model | None:
    """Return a row with the values of its part in a parent's table."""
    if row is None or part is None:
        return row
    return _made(type(row), {**row.__dict__, **part.__dict__}, alias)


def _made(model: type[Model], values: dict[str, Any], alias: str) -> Model:
    names = [f.attname for f in model._meta.concrete_fields if f.attname in values]
    return model.from_db(alias, names, [values[name] for name in names])
