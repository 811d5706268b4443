"""Questions to the registry. Nothing here writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from uni_moe.artifacts import CARD, Layout, read_card
from uni_moe.errors import LineageError
from uni_moe.registry.cards import all_runs
from uni_moe.registry.tables import ArtifactRow, EdgeRow, VerdictRow, VersionRow, reading
from uni_moe.storage.blobs import LocalFolder

_FACTS = ("listed", "with_problems", "splits", "sources", "licenses", "mean", "bias", "scores")
_MANY = 10


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
    def model_folder(self) -> Path:
        """Where the store keeps the model itself."""
        return self.folder / "model"

    @property
    def report_folder(self) -> Path:
        """Where the store keeps the judgement of this model."""
        return self.folder / report_key(self.report)

    def to_json(self) -> dict[str, Any]:
        """Return the version as a JSON object."""
        return {**asdict(self), "folder": str(self.folder)}


@dataclass(frozen=True)
class RunState:
    """One execution of a stage, as its folder tells it now."""

    id: str
    stage: str
    status: str  # running, done, failed, or died: its heart stopped without an end
    started: str
    ended: str | None
    duration_s: float | None
    reason: str | None
    error: str | None
    artifacts: dict[str, str]  # name in the workspace -> card id
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """Return the run as a JSON object."""
        return {**asdict(self), "folder": str(self.folder)}


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


def models(layout: Layout) -> list[Version]:
    """Return every registered model, newest last."""
    with reading(layout) as session:
        champion_id = _champion_id(session)
        ordered = select(VerdictRow).order_by(VerdictRow.at, VerdictRow.run)
        verdicts = {
            row.candidate: "promoted" if row.promoted else "refused"
            for row in session.scalars(ordered)
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
                folder=store.place(row.model),
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
    with reading(layout) as session:
        return (session.scalar(select(func.max(VersionRow.number))) or 0) + 1


def report_key(report: str) -> str:
    """Return the name that a report has in its model's folder; a model may be judged again."""
    return f"report-{report[:12]}"


def runs(layout: Layout) -> list[RunState]:
    """Return every run, oldest first, from the run folders: the index may be behind."""
    return [
        RunState(
            id=record["id"],
            stage=record["stage"],
            status=record["status"],
            started=record["started"],
            ended=record.get("ended"),
            duration_s=record.get("duration_s"),
            reason=record.get("reason"),
            error=record.get("error"),
            artifacts=dict(record["artifacts"]),
            folder=folder,
        )
        for folder, record in all_runs(layout)
    ]


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


def lineage(layout: Layout, name_or_id: str | None = None) -> Node:
    """Return the tree from an artifact back to its sources, by the exact ids its cards name.

    Args:
        layout: the workspace.
        name_or_id: a version's number, an artifact's name such as `artifacts/model` (what lies
            there now), or the beginning of an id; None takes the champion, and where there is
            none the candidate in artifacts/.

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
        return _champion_id(session) or read_card(layout.model).id
    if name_or_id.isdecimal():
        row = session.get(VersionRow, int(name_or_id))
        if row is not None:
            return row.model
    if (layout.root / name_or_id / CARD).is_file():
        return read_card(layout.root / name_or_id).id
    named = select(ArtifactRow.id).where(ArtifactRow.id.startswith(name_or_id, autoescape=True))
    ids = session.scalars(named.limit(_MANY)).all()
    if len(ids) != 1:
        raise LineageError(
            f"{name_or_id!r} names {len(ids) if len(ids) < _MANY else 'many'} artifacts.",
            cause="it is no version, no artifact's folder, nor the beginning of one artifact's id.",
            remedy="take a version or an id from `uni-moe models`, or run `uni-moe index` first.",
        )
    return ids[0]


def _champion_id(session: Session) -> str | None:
    return session.scalars(
        select(VerdictRow.candidate)
        .where(VerdictRow.promoted)
        .order_by(VerdictRow.at.desc(), VerdictRow.run.desc())
        .limit(1)
    ).first()
