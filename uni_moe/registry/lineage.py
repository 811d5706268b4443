"""The tree from an artifact back to its sources, by the exact ids that cards name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from uni_moe.artifacts import CARD, Layout, read_card
from uni_moe.errors import LineageError
from uni_moe.registry.database import reading
from uni_moe.registry.tables import ArtifactRow, EdgeRow, VersionRow, champion_id

_FACTS = ("listed", "with_problems", "splits", "sources", "licenses", "mean", "bias", "scores")
_MANY = 10
SHORTEST = 4  # letters of an id; `3` is a version that is not there, never an id


@dataclass(frozen=True)
class Node:
    """An artifact in a lineage tree, with the artifacts it was made from.

    `stage` is None where only the id is known, because the card is nowhere any more.
    """

    id: str
    name: str
    stage: str | None
    facts: dict[str, Any]
    parents: tuple[Node, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the tree as a JSON object."""
        return {
            "id": self.id,
            "name": self.name,
            "stage": self.stage,
            "facts": self.facts,
            "parents": [parent.to_json() for parent in self.parents],
        }


def lineage(layout: Layout, name_or_id: str | None = None) -> Node:
    """Return the tree from an artifact back to its sources, by the exact ids its cards name.

    Args:
        layout: the workspace.
        name_or_id: a version's number, an artifact's name such as `artifacts/model` (what lies
            there now), or the beginning of an id, four letters or more; None takes the champion,
            and where there is none the candidate in artifacts/.

    Raises:
        LineageError: nothing, or more than one thing, has this name.
    """
    with reading(layout) as session:
        start = _find(session, layout, name_or_id)
        row = session.get(ArtifactRow, start)
        if row is None:
            raise LineageError(
                f"The index knows no artifact {start[:12]}.",
                cause="its card has come since the index was written.",
                remedy="run `uni-moe index`, then ask again.",
            )
        return _node(session, start, row.name, {})


def lineage_text(node: Node) -> str:
    """Return the tree as lines; what was shown above is only named again."""
    lines: list[str] = []
    _draw(node, "", "", lines, set())
    return "\n".join(lines)


def _draw(node: Node, lead: str, below: str, lines: list[str], shown: set[str]) -> None:
    lines.append(f"{lead}{node.name}  {node.id[:12]}  {_beside(node, again=node.id in shown)}")
    if node.id in shown:
        return
    shown.add(node.id)
    for i, parent in enumerate(node.parents):
        last = i == len(node.parents) - 1
        _draw(
            parent,
            below + ("└─ " if last else "├─ "),
            below + ("   " if last else "│  "),
            lines,
            shown,
        )


def _beside(node: Node, *, again: bool) -> str:
    if again:
        return "(shown above)"
    if node.stage is None:
        return "(its card is gone: it was made again and never registered)"
    facts = (f"{name}: {_fact(value)}" for name, value in node.facts.items())
    return "  ".join((f"[{node.stage}]", *facts))


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key} ({_fact(item)})" if isinstance(item, Mapping) else f"{key} {_fact(item)}"
            for key, item in value.items()
        )
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _node(session: Session, card_id: str, name: str, done: dict[str, Node]) -> Node:
    if card_id in done:
        return done[card_id]
    row = session.get(ArtifactRow, card_id)
    if row is None:
        return Node(card_id, name, None, {}, ())
    ordered = select(EdgeRow).where(EdgeRow.child == card_id).order_by(EdgeRow.name)
    parents = tuple(
        _node(session, edge.parent, edge.name, done) for edge in session.scalars(ordered).all()
    )
    done[card_id] = Node(card_id, row.name, row.stage, _facts(row), parents)
    return done[card_id]


def _facts(row: ArtifactRow) -> dict[str, Any]:
    """Return what a person wants beside an artifact's name, where its stage counted it."""
    facts = {name: row.results[name] for name in _FACTS if name in row.results}
    if row.kind == "samples" and "sources" not in facts:
        names = [source["name"] for source in row.params.get("sources", [])]
        facts |= {"sources": names} if names else {}
    return facts


def _find(session: Session, layout: Layout, name_or_id: str | None) -> str:
    if name_or_id is None:
        return champion_id(session) or read_card(layout.model).id
    if name_or_id.isdecimal():
        numbered = select(VersionRow.model).where(VersionRow.number == int(name_or_id)).distinct()
        models = session.scalars(numbered).all()
        if len(models) == 1:
            return models[0]
    if (layout.root / name_or_id / CARD).is_file():
        return read_card(layout.root / name_or_id).id
    named = select(ArtifactRow.id).where(ArtifactRow.id.startswith(name_or_id, autoescape=True))
    known = len(name_or_id) >= SHORTEST
    ids = session.scalars(named.limit(_MANY)).all() if known else []
    if len(ids) != 1:
        raise LineageError(
            f"{name_or_id!r} names {len(ids) if len(ids) < _MANY else 'many'} artifacts.",
            cause="it is no version, no artifact's folder, nor the beginning of one artifact's id.",
            remedy="take a version or an id from `uni-moe models`, or run `uni-moe index` first.",
        )
    return ids[0]
