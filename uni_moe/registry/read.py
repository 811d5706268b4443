"""Questions to the registry: versions, verdicts, scores, runs, lineage. Nothing here writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from uni_moe.artifacts import Layout
from uni_moe.errors import LineageError, UnknownError
from uni_moe.registry.cards import all_runs, report_key
from uni_moe.registry.database import reading
from uni_moe.registry.gate import Verdict
from uni_moe.registry.lineage import Lineage, Node, lineage, lineage_text
from uni_moe.registry.metric_questions import (
    Point,
    RunNumber,
    Series,
    curve,
    metric_keys,
    metrics,
    not_finite,
    top_runs,
)
from uni_moe.registry.naming import SHORTEST
from uni_moe.registry.run_lines import RunLine
from uni_moe.registry.run_questions import (
    RunFilter,
    RunOrder,
    RunPage,
    run_choices,
    run_page,
)
from uni_moe.registry.tables import IN_ORDER, VerdictRow, VersionRow, champion_id
from uni_moe.storage.blobs import LocalFolder

__all__ = [
    "Decision",
    "Lineage",
    "Node",
    "Point",
    "Reign",
    "RunFilter",
    "RunLine",
    "RunNumber",
    "RunOrder",
    "RunPage",
    "RunState",
    "Series",
    "Version",
    "champion",
    "curve",
    "find",
    "history",
    "lineage",
    "lineage_text",
    "metric_keys",
    "metrics",
    "models",
    "models_text",
    "next_number",
    "next_sequence",
    "not_finite",
    "run_choices",
    "run_page",
    "runs",
    "top_runs",
    "verdicts",
    "version_of",
]


@dataclass(frozen=True)
class Version:
    """A registered model and where the store keeps it.

    When, who and why are of its first registration; the report is the last that judged it.
    """

    number: int
    model: str
    report: str
    at: str
    who: str
    reason: str
    verdict: str  # promoted, refused, waiting for approvals, or not judged
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
class Decision:
    """A verdict of the gate, when it fell, in which run, and about which reports."""

    run: str
    at: str
    verdict: Verdict
    candidate_report: str | None
    champion_report: str | None


@dataclass(frozen=True)
class Reign:
    """A time during which one model was the champion; `until` is None for the one of today."""

    number: int | None  # None where its registration is gone
    model: str
    since: str
    until: str | None
    run: str  # of the gate that promoted it


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


def models(layout: Layout) -> list[Version]:
    """Return every registered model, newest last."""
    with reading(layout) as session:
        champion_is = champion_id(session)
        ordered = select(VerdictRow).order_by(*IN_ORDER)
        said = {row.candidate: _word(row) for row in session.scalars(ordered)}
        registered: dict[str, list[VersionRow]] = {}
        for row in session.scalars(
            select(VersionRow).order_by(VersionRow.sequence, VersionRow.at, VersionRow.run)
        ):
            registered.setdefault(row.model, []).append(row)
    found = [
        Version(
            number=rows[0].number,
            model=model,
            report=rows[-1].report,
            at=rows[0].at,
            who=rows[0].who,
            reason=rows[0].reason,
            verdict=said.get(model, "not judged"),
            is_champion=model == champion_is,
            folder=LocalFolder(layout.store).place(model),
        )
        for model, rows in registered.items()
    ]
    return sorted(found, key=lambda version: (version.number, version.at))


def _word(row: VerdictRow) -> str:
    if row.promoted:
        return "promoted"
    return "waiting" if row.evidence.get("waits") else "refused"


def champion(layout: Layout) -> Version | None:
    """Return the model that was promoted last, None where none was."""
    return next((version for version in models(layout) if version.is_champion), None)


def find(layout: Layout, name: str | None) -> Version:
    """Return a version by its number or four letters or more of its model's id.

    None is the champion.

    Raises:
        UnknownError: no version or several are meant.
        LineageError: there is no champion.
    """
    known = models(layout)
    if name is None:
        found = [version for version in known if version.is_champion]
    else:
        found = [v for v in known if str(v.number) == name]
        if not found and len(name) >= SHORTEST:
            found = [v for v in known if v.model.startswith(name)]
    if len(found) != 1:
        meant = "the champion" if name is None else repr(name)
        several = ", ".join(f"{v.number} ({v.model[:12]})" for v in found[:5])
        kind = LineageError if name is None else UnknownError
        raise kind(
            f"{meant} names {len(found)} registered models{f': {several}' if found else ''}.",
            cause=f"{len(known)} versions are registered.",
            remedy="take one from `uni-moe models`, by its number or the beginning of its id.",
        )
    return found[0]


def version_of(layout: Layout, model: str) -> Version | None:
    """Return the version of a model's card id."""
    return next((version for version in models(layout) if version.model == model), None)


def next_number(layout: Layout) -> int:
    """Return the number that the next new model gets."""
    with reading(layout) as session:
        return (session.scalar(select(func.max(VersionRow.number))) or 0) + 1


def next_sequence(layout: Layout) -> int:
    """Return the place of the next registration or verdict: clocks may go wrong, counting not."""
    with reading(layout) as session:
        last = [session.scalar(select(func.max(row.sequence))) for row in (VersionRow, VerdictRow)]
        return max(0, *(number or 0 for number in last)) + 1


def verdicts(layout: Layout) -> list[Decision]:
    """Return every decision of the gate, oldest first."""
    with reading(layout) as session:
        rows = session.scalars(select(VerdictRow).order_by(*IN_ORDER))
        return [
            Decision(
                run=row.run,
                at=row.at,
                verdict=Verdict(
                    candidate=row.candidate,
                    champion=row.champion,
                    promoted=row.promoted,
                    reasons=tuple(row.reasons),
                    evidence=row.evidence,
                ),
                candidate_report=row.candidate_report,
                champion_report=row.champion_report,
            )
            for row in rows
        ]


def history(layout: Layout) -> list[Reign]:
    """Return who was the champion from when until when, oldest first."""
    numbers = {version.model: version.number for version in models(layout)}
    promoted = [decision for decision in verdicts(layout) if decision.verdict.promoted]
    ends: list[str | None] = [decision.at for decision in promoted[1:]]
    return [
        Reign(
            number=numbers.get(decision.verdict.candidate),
            model=decision.verdict.candidate,
            since=decision.at,
            until=until,
            run=decision.run,
        )
        for decision, until in zip(promoted, [*ends, None], strict=False)
    ]


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


def models_text(versions: Sequence[Version], removed: Mapping[str, str] | None = None) -> str:
    """Return a table of versions for a person; `removed` says how a model's weights went."""
    if not versions:
        return "no model is registered; `uni-moe run` trains and registers one"
    lines = ["version  model         registered        verdict     why"]
    for version in versions:
        mark = " (champion)" if version.is_champion else ""
        if not version.model_folder.is_dir():
            mark += f" ({(removed or {}).get(version.model, 'kept elsewhere')})"
        lines.append(
            f"{version.number:7}  {version.model[:12]}  {version.at[:16]}  "
            f"{version.verdict:10}  {version.reason}{mark}"
        )
    return "\n".join(lines)
