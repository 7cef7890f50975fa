"""The graph of dependencies."""

from __future__ import annotations

from pgobserve.cli.deps import graph
from pgobserve.dependencies.gathering import Dependencies
from pgobserve.sql.relation_path import Join, RelationPath
from tests.project.shapes import MixedCase, Quoted


def test_names_are_escaped() -> None:
    """Quotes and backslashes in names stay what they are."""
    on = (MixedCase._meta.get_field("id"), Quoted._meta.get_field("id"))
    found = Dependencies((RelationPath(MixedCase, (Join(Quoted, (on,)),)),))

    lines = graph([('a\\"b', [MixedCase], found)]).splitlines()
    assert lines[3:-1] == [
        '  "a\\\\\\"b" [shape=ellipse];',
        '  "a\\\\\\"b" -> "project.MixedCase";',
        '  "project.MixedCase" -> "project.Quoted" [label="Key Column = \\"Id\\""];',
    ]


def test_order_is_stable() -> None:
    """Repeated dependencies are drawn once, in the order of names."""
    consumers = [("b", [Quoted], Dependencies()), ("a", [Quoted], Dependencies())]

    drawn = graph(consumers)
    assert drawn == graph(consumers[::-1])
    assert drawn == graph([*consumers, *consumers])
