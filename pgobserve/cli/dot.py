"""Dependencies as a Graphviz graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import Model

    from pgobserve.dependencies.gathering import Dependencies
    from pgobserve.sql.relation_path import Join, RelationPath

    #: Dotted name, models, and the dependencies of their rows.
    Consumer = tuple[str, Iterable[type[Model]], Dependencies]


def graph(consumers: Iterable[Consumer]) -> str:
    """
    Return a graph: consumers as ellipses, tables as boxes, joins as arrows.

    A dashed arrow points to a full-refresh table: any change makes feeds read all rows again.
    """
    nodes: dict[str, None] = {}
    edges: dict[str, None] = {}
    for name, models, found in consumers:
        nodes[f"{_quoted(name)} [shape=ellipse]"] = None
        for model in models:
            edges[f"{_quoted(name)} -> {_node(model)}"] = None
        for path in found.paths:
            edges |= dict.fromkeys(_joins(path))
        for model in found.full_refresh:
            edges[f'{_quoted(name)} -> {_node(model)} [style=dashed, label="reads all"]'] = None
    lines = [*sorted(nodes), *sorted(edges)]
    body = "".join(f"  {line};\n" for line in lines)
    return f"digraph pgobserve {{\n  rankdir=LR;\n  node [shape=box];\n{body}}}"


def _joins(path: RelationPath) -> Iterable[str]:
    model = path.root
    for join in path.joins:
        yield f"{_node(model)} -> {_node(join.model)} [label={_quoted(_condition(join))}]"
        model = join.model


def _condition(join: Join) -> str:
    return ", ".join(f"{source.column} = {target.column}" for source, target in join.on)


def _node(model: type[Model]) -> str:
    return _quoted(model._meta.label)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
