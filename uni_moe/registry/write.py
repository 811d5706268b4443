"""Writes the registry: the store and run folders first, then the index that follows from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, delete, func, select
from sqlalchemy.orm import Session

from uni_moe.artifacts import CARD, Layout, read_json, verified_card, whole_folder, write_json
from uni_moe.config import Gate
from uni_moe.errors import LineageError
from uni_moe.records import Card, EvalReport, Score
from uni_moe.registry import read
from uni_moe.registry.cards import CARDS, all_cards, all_runs, card_file, json_lines
from uni_moe.registry.gate import Verdict, decide
from uni_moe.registry.tables import (
    ArtifactRow,
    Base,
    EdgeRow,
    MetricRow,
    RunArtifactRow,
    RunRow,
    ScoreRow,
    VerdictRow,
    VersionRow,
    open_engine,
)
from uni_moe.runs import start_run
from uni_moe.storage.blobs import LocalFolder

REGISTRATION, VERDICT = "registration.json", "verdict.json"
_ENDED = ("done", "failed", "died")


@dataclass(frozen=True)
class Candidate:
    """A registered model: its version and the ids of its card and its report's."""

    number: int
    model: str
    report: str


def register(layout: Layout, *, reason: str, who: str) -> Candidate:
    """Keep the candidate in artifacts/ for good, with its report and the cards of its ancestors.

    Registering the same model and report again returns the same version.

    Raises:
        LineageError: an artifact is not what its card says, or the report judges another model.
    """
    model, report = verified_card(layout.model), verified_card(layout.report)
    if report.parents.get(layout.name_of(layout.model)) != model.id:
        raise LineageError(
            "The report in artifacts/report judges another model than the one in artifacts/model.",
            cause="the model was trained again after it had been judged.",
            remedy="run `dvc repro evaluate`, then register again.",
        )
    index(layout)
    known = read.version_of(layout, model.id)
    if known is not None and known.report == report.id:
        return Candidate(known.number, model.id, report.id)
    number = known.number if known is not None else read.next_number(layout)
    _keep(layout, model, report)
    with start_run(layout, "register", {}) as run:
        facts = {"number": number, "model": model.id, "report": report.id}
        write_json(
            run.folder / REGISTRATION,
            {**facts, "who": who, "reason": reason, "at": run.record["started"]},
        )
    index(layout)
    return Candidate(number, model.id, report.id)


def promote_if_better(layout: Layout, candidate: Candidate, rules: Gate) -> Verdict:
    """Let the gate decide; write its verdict, which names the champion if it promotes."""
    current = read.champion(layout)
    verdict = decide(
        _report(layout, candidate.model),
        None if current is None else _report(layout, current.model),
        rules,
    )
    if current is not None and current.model == candidate.model:
        return verdict
    with start_run(layout, "gate", asdict(rules)) as run:
        write_json(run.folder / VERDICT, {**verdict.to_json(), "at": run.record["started"]})
    index(layout)
    return verdict


def index(layout: Layout) -> dict[str, int]:
    """Import every card and run folder that is not in the index yet; return what it holds."""
    with _session(layout) as session:
        for card_id, (name, card) in all_cards(layout).items():
            _index_card(session, card_id, name, card)
        session.flush()
        for folder, record in all_runs(layout):
            _index_run(session, folder, record)
        session.flush()
        for report in _reports(layout):
            _index_scores(session, *report)
        session.flush()
        tables = (ArtifactRow, EdgeRow, RunRow, MetricRow, ScoreRow, VersionRow, VerdictRow)
        return {
            table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0
            for table in tables
        }


def rebuild(layout: Layout) -> dict[str, int]:
    """Drop the index and import it again from cards and run folders."""
    engine = open_engine(layout)
    Base.metadata.drop_all(engine)
    engine.dispose()
    return index(layout)


@contextmanager
def _session(layout: Layout) -> Iterator[Session]:
    engine: Engine = open_engine(layout)
    try:
        with Session(engine) as session, session.begin():
            yield session
    finally:
        engine.dispose()


def _keep(layout: Layout, model: Card, report: Card) -> None:
    store = LocalFolder(layout.store)
    store.put_folder(f"{model.id}/model", layout.model)
    store.put_folder(f"{model.id}/report-{report.id[:12]}", layout.report)
    cards = all_cards(layout)
    with whole_folder(layout.store / model.id / CARDS) as folder:
        for card_id in _ancestors(cards, model.id) | _ancestors(cards, report.id):
            name, card = cards[card_id]
            write_json(folder / card_file(name), card.to_json())


def _ancestors(cards: Mapping[str, tuple[str, Card]], start: str) -> set[str]:
    """Return an artifact and everything it was made from.

    Raises:
        LineageError: a parent's card is nowhere.
    """
    found, waiting = set(), [start]
    while waiting:
        card_id = waiting.pop()
        if card_id in found:
            continue
        if card_id not in cards:
            raise LineageError(
                f"The card {card_id[:12]} is missing, so the lineage has a gap.",
                cause="an artifact was made again after its children had been made.",
                remedy="run `dvc repro`, then register again.",
            )
        found.add(card_id)
        waiting += cards[card_id][1].parents.values()
    return found


def _report(layout: Layout, model: str) -> EvalReport:
    version = read.version_of(layout, model)
    assert version is not None
    return EvalReport.from_json(read_json(version.report_folder / "report.json"))


def _index_card(session: Session, card_id: str, name: str, card: Card) -> None:
    if session.get(ArtifactRow, card_id) is not None:
        return
    session.add(
        ArtifactRow(
            id=card_id,
            name=name,
            stage=card.stage,
            kind=card.kind,
            code=card.code,
            params=dict(card.params),
            results=dict(card.results),
        )
    )
    session.flush()
    for parent_name, parent in card.parents.items():
        session.add(EdgeRow(child=card_id, name=parent_name, parent=parent))


def _index_run(session: Session, folder: Path, record: Mapping[str, Any]) -> None:
    known = session.get(RunRow, record["id"])
    if known is not None and known.status in _ENDED:
        return
    optional = ("ended", "duration_s", "user", "host", "reason", "commit", "error")
    session.merge(
        RunRow(
            id=record["id"],
            stage=record["stage"],
            status=record["status"],
            started=record["started"],
            **{name: record.get(name) for name in optional},
        )
    )
    session.flush()
    for name, artifact in record["artifacts"].items():
        session.merge(RunArtifactRow(run=record["id"], name=name, artifact=artifact))
    _index_metrics(session, record["id"], folder)
    _index_facts(session, record["id"], folder)


def _index_metrics(session: Session, run: str, folder: Path) -> None:
    session.execute(delete(MetricRow).where(MetricRow.run == run))
    rows = {
        (key, line["step"]): value
        for line in json_lines(folder / "metrics.jsonl")
        for key, value in line.items()
        if key not in ("time", "step")
    }
    session.add_all(MetricRow(run=run, key=k, step=s, value=v) for (k, s), v in rows.items())


def _index_facts(session: Session, run: str, folder: Path) -> None:
    """Import what a run decided: a registration or a verdict."""
    if (folder / REGISTRATION).is_file():
        session.merge(VersionRow(**read_json(folder / REGISTRATION), run=run))
    if (folder / VERDICT).is_file():
        session.merge(VerdictRow(**read_json(folder / VERDICT), run=run))


def _reports(layout: Layout) -> Iterator[tuple[str, EvalReport]]:
    folders = [layout.report, *sorted(layout.store.glob("*/report-*"))]
    for folder in folders:
        if (folder / CARD).is_file():
            card = Card.from_json(read_json(folder / CARD))
            yield card.id, EvalReport.from_json(read_json(folder / "report.json"))


def _index_scores(session: Session, report_id: str, report: EvalReport) -> None:
    scopes: dict[str, Mapping[str, Score]] = {"modality": report.modalities, "task": report.tasks}
    for scope, scores in scopes.items():
        for name, score in scores.items():
            session.merge(
                ScoreRow(
                    report=report_id, scope=scope, name=name, model=report.model, **asdict(score)
                )
            )
