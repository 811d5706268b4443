"""Questions to the registry. Nothing here writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout, read_card
from uni_moe.errors import LineageError
from uni_moe.registry.tables import ArtifactRow, EdgeRow, VerdictRow, VersionRow, open_engine
from uni_moe.storage.blobs import LocalFolder


@dataclass(frozen=True)
class Version:
    """A registered model and where the store keeps it."""

    number: int
    model: str
    report: str
    at: str
    who: str
    reason: str
    verdict: str  # promoted, refused, or not judged
    is_champion: bool
    folder: Path

    @property
    def report_folder(self) -> Path:
        """Where the store keeps the judgement of this model."""
        return self.folder / f"report-{self.report[:12]}"

    def to_json(self) -> dict[str, Any]:
        """Return the version as a JSON object."""
        return {**asdict(self), "folder": str(self.folder)}


@dataclass(frozen=True)
class Node:
    """An artifact in a lineage tree, with the artifacts it was made from."""

    id: str
    name: str
    stage: str
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


def models(layout: Layout) -> list[Version]:
    """Return every registered model, newest last."""
    with _session(layout) as session:
        champion_id = _champion_id(session)
        verdicts = {
            row.candidate: "promoted" if row.promoted else "refused"
            for row in session.scalars(select(VerdictRow).order_by(VerdictRow.at))
        }
        rows = session.scalars(select(VersionRow).order_by(VersionRow.number)).all()
        store = LocalFolder(layout.store)
        return [
            Version(
                number=row.number,
                model=row.model,
                report=row.report,
                at=row.at,
                who=row.who,
                reason=row.reason,
                verdict=verdicts.get(row.model, "not judged"),
                is_champion=row.model == champion_id,
                folder=store.root / row.model,
            )
            for row in rows
        ]


def champion(layout: Layout) -> Version | None:
    """Return the model that was promoted last, None where none was."""
    return next((version for version in models(layout) if version.is_champion), None)


def version_of(layout: Layout, model: str) -> Version | None:
    """Return the version of a model's card id."""
    return next((version for version in models(layout) if version.model == model), None)


def next_number(layout: Layout) -> int:
    """Return the number that the next new model gets."""
    with _session(layout) as session:
        return (session.scalar(select(func.max(VersionRow.number))) or 0) + 1


def models_text(versions: Sequence[Version]) -> str:
    """Return a table of versions for a person."""
    if not versions:
        return "no model is registered; `uni-moe run` trains and registers one"
    lines = ["version  model         registered        verdict     why"]
    for version in versions:
        mark = " (champion)" if version.is_champion else ""
        lines.append(
            f"{version.number:7}  {version.model[:12]}  {version.at[:16]}  "
            f"{version.verdict:10}  {version.reason}{mark}"
        )
    return "\n".join(lines)


def lineage(layout: Layout, model: str | None) -> Node:
    """Return the tree from a model back to its sources, by the exact ids its cards name.

    Args:
        layout: the workspace.
        model: a version's number, or the beginning of an artifact's id; None takes the champion,
            and where there is none the candidate in artifacts/.

    Raises:
        LineageError: nothing, or more than one thing, has this name.
    """
    with _session(layout) as session:
        start = _find(session, layout, model)
        return _node(session, start, {})


def lineage_text(node: Node) -> str:
    """Return the tree as lines; what was shown above is only named again."""
    lines: list[str] = []
    _draw(node, "", "", lines, set())
    return "\n".join(lines)


def _draw(node: Node, lead: str, below: str, lines: list[str], shown: set[str]) -> None:
    again = node.id in shown
    facts = "  ".join(f"{key} {value}" for key, value in node.facts.items())
    suffix = " (shown above)" if again and node.parents else f"  {facts}" if facts else ""
    lines.append(f"{lead}{node.name}  {node.id[:12]}  [{node.stage}]{suffix}")
    if again:
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


def _node(session: Session, card_id: str, done: dict[str, Node]) -> Node:
    if card_id in done:
        return done[card_id]
    row = session.get(ArtifactRow, card_id)
    if row is None:
        raise LineageError(
            f"The index knows no artifact {card_id[:12]}.",
            cause="its card is neither in artifacts/ nor in the store.",
            remedy="run `uni-moe index`; if it stays unknown, run `dvc checkout`.",
        )
    edges = session.scalars(
        select(EdgeRow).where(EdgeRow.child == card_id).order_by(EdgeRow.name)
    ).all()
    parents = tuple(_node(session, edge.parent, done) for edge in edges)
    done[card_id] = Node(card_id, row.name, row.stage, _facts(row), parents)
    return done[card_id]


def _facts(row: ArtifactRow) -> dict[str, Any]:
    """Return what a person wants beside an artifact's name."""
    wanted = ("counts", "listed", "sources", "licenses", "mean", "steps", "scores")
    facts = {name: row.results[name] for name in wanted if name in row.results}
    if row.kind == "samples":
        facts["sources"] = [source["name"] for source in row.params.get("sources", [])]
    return facts


def _find(session: Session, layout: Layout, model: str | None) -> str:
    if model is None:
        return _champion_id(session) or read_card(layout.model).id
    if model.isdecimal():
        row = session.get(VersionRow, int(model))
        if row is not None:
            return row.model
    ids = session.scalars(select(ArtifactRow.id).where(ArtifactRow.id.startswith(model))).all()
    if len(ids) != 1:
        raise LineageError(
            f"{model!r} names {len(ids)} artifacts.",
            cause="it is neither a version nor the beginning of one artifact's id.",
            remedy="take a version or an id from `uni-moe models`.",
        )
    return ids[0]


def _champion_id(session: Session) -> str | None:
    return session.scalars(
        select(VerdictRow.candidate).where(VerdictRow.promoted).order_by(VerdictRow.at.desc())
    ).first()


@contextmanager
def _session(layout: Layout) -> Iterator[Session]:
    engine = open_engine(layout)
    try:
        with Session(engine) as session:
            yield session
    finally:
        engine.dispose()
