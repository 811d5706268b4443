"""Lineage: where an artifact comes from, and what was made from it, by ids that cards name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout
from uni_moe.errors import LineageError
from uni_moe.registry.database import reading
from uni_moe.registry.graph import Artifact, above, below, in_order, versions_of
from uni_moe.registry.naming import one_meant
from uni_moe.registry.tables import ArtifactRow

_FACTS = ("listed", "with_problems", "splits", "sources", "licenses", "mean", "bias", "scores")
_MOST = 500  # values that one statement names


@dataclass(frozen=True)
class Node:
    """An artifact in a lineage, and what it was made from: name in the workspace then -> id.

    `stage` is None where only the id is known, because the card is nowhere any more.
    """

    id: str
    name: str
    stage: str | None
    versions: tuple[int, ...]
    facts: dict[str, Any]
    parents: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the artifact as a JSON object."""
        return {
            "id": self.id,
            "name": self.name,
            "stage": self.stage,
            "versions": list(self.versions),
            "facts": self.facts,
            "parents": dict(self.parents),
        }


@dataclass(frozen=True)
class Lineage:
    """All that an artifact was made from, and all that was made from it, by id.

    Both hold the artifact itself, and stand so that each is behind what it was made from. `down` is
    None where nobody asked.
    """

    start: str
    up: Mapping[str, Node]
    down: Mapping[str, Node] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the graph as a JSON object; every artifact stands in it once."""
        told: dict[str, Any] = {"start": self.start}
        told["up"] = [node.to_json() for node in self.up.values()]
        if self.down is not None:
            told["down"] = [node.to_json() for node in self.down.values()]
        return told


def lineage(layout: Layout, name_or_id: str | None = None, *, down: bool = False) -> Lineage:
    """Return what an artifact was made from, back to its sources.

    Args:
        layout: the workspace.
        name_or_id: a version's number, an artifact's name such as `artifacts/model` (what lies
            there now), or the beginning of an id, four letters or more; None takes the champion,
            and where there is none the candidate in artifacts/.
        down: say what was made from it, too.

    Raises:
        UnknownError: nothing, or more than one thing, has this name.
        LineageError: the index does not know it yet.
    """
    with reading(layout) as session:
        return walked(session, one_meant(session, layout, name_or_id), down=down)


def walked(session: Session, start: str, *, down: bool) -> Lineage:
    """Return the lineage of an artifact by its id.

    Raises:
        LineageError: the index does not know it.
    """
    if session.get(ArtifactRow, start) is None:
        raise LineageError(
            f"The index knows no artifact {start[:12]}.",
            cause="its card has come since the index was written.",
            remedy="run `uni-moe index`, then ask again.",
        )
    up = _nodes(session, above(session, [start]))
    return Lineage(start, up, _nodes(session, below(session, [start])) if down else None)


def lineage_text(found: Lineage) -> str:
    """Return the trees as lines; what was shown above is only named again."""
    up = {node.id: list(node.parents.items()) for node in found.up.values()}
    lines = list(_drawn(found.start, up, found.up))
    if found.down is None:
        return "\n".join(lines)
    made: dict[str, list[tuple[str, str]]] = {}
    for node in found.down.values():
        for parent in dict.fromkeys(node.parents.values()):
            made.setdefault(parent, []).append((node.name, node.id))
    below_it = list(_drawn(found.start, made, found.down))
    nothing = ["nothing that is known here was made from it"]
    return "\n".join([*lines, "", "made from it:", *(below_it[1:] or nothing)])


def _drawn(
    start: str, next_to: Mapping[str, list[tuple[str, str]]], nodes: Mapping[str, Node]
) -> Iterator[str]:
    """Give the lines of a tree, without recursion: chains of retrainings are long."""
    shown: set[str] = set()
    waiting = [(nodes[start].name, start, "", "")]
    while waiting:
        name, one, lead, under = waiting.pop()
        yield f"{lead}{name}  {one[:12]}  {_beside(nodes.get(one), again=one in shown)}".rstrip()
        if one in shown:
            continue
        shown.add(one)
        following = next_to.get(one, [])
        for place, (label, other) in reversed(list(enumerate(following))):
            last = place == len(following) - 1
            marks = ("└─ ", "   ") if last else ("├─ ", "│  ")
            waiting.append((label, other, under + marks[0], under + marks[1]))


def _beside(node: Node | None, *, again: bool) -> str:
    if again:
        return "(shown above)"
    if node is None or node.stage is None:
        return "(its card is gone: it was made again and never registered)"
    facts = (f"{name}: {fact(value)}" for name, value in node.facts.items())
    numbers = [f"version {number}" for number in node.versions]
    return "  ".join((f"[{node.stage}]", *numbers, *facts))


def fact(value: object) -> str:
    """Return a fact of a card in words."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key} ({fact(item)})" if isinstance(item, Mapping) else f"{key} {fact(item)}"
            for key, item in value.items()
        )
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _nodes(session: Session, artifacts: Mapping[str, Artifact]) -> dict[str, Node]:
    facts = facts_of(session, artifacts)
    numbers = versions_of(session, artifacts)
    return {
        one.id: Node(
            one.id,
            one.name,
            one.stage,
            numbers.get(one.id, ()),
            facts.get(one.id, {}),
            one.parents,
        )
        for one in in_order(artifacts)
    }


def facts_of(session: Session, ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return what a person wants beside an artifact's name, where its stage counted it."""
    wanted, found = list(ids), {}
    for start in range(0, len(wanted), _MOST):
        part = wanted[start : start + _MOST]
        columns = (ArtifactRow.id, ArtifactRow.kind, ArtifactRow.params, ArtifactRow.results)
        for one, kind, params, results in session.execute(
            select(*columns).where(ArtifactRow.id.in_(part))
        ):
            facts = {name: results[name] for name in _FACTS if name in results}
            if kind == "samples" and "sources" not in facts:
                names = [source["name"] for source in params.get("sources", [])]
                facts |= {"sources": names} if names else {}
            found[one] = facts
    return found
