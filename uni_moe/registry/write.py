"""Writes the registry: the store and run folders first, then the index that follows from them."""

from __future__ import annotations

import fcntl
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from uni_moe.artifacts import CARD, Layout, read_card, read_json, verified_card, write_json
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
    EvaluationRow,
    MetricRow,
    RunArtifactRow,
    RunRow,
    VerdictRow,
    VersionRow,
    writing,
)
from uni_moe.runs import start_run
from uni_moe.storage.blobs import LocalFolder

REGISTRATION, VERDICT = "registration.json", "verdict.json"
REPORT = "report.json"
_ENDED = ("done", "failed")  # a run that seems dead may have slept with its machine


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
    if _judged_model(layout) != model.id:
        raise LineageError(
            "artifacts/report/report.json names another model than its card.",
            cause="the stage that wrote it mixed up its inputs: this is our bug.",
            remedy="run `dvc repro --force evaluate`; tell us if it stays so.",
        )
    with _alone(layout):
        index(layout)
        known = read.version_of(layout, model.id)
        if known is None or known.report != report.id:
            number = known.number if known is not None else read.next_number(layout)
            _keep(layout, model, report)
            _record(layout, Candidate(number, model.id, report.id), who=who, reason=reason)
            index(layout)
            return Candidate(number, model.id, report.id)
    return Candidate(known.number, model.id, report.id)


def promote_if_better(layout: Layout, candidate: Candidate, rules: Gate) -> Verdict:
    """Let the gate decide; write its verdict, which names the champion if it promotes.

    Asking again about the champion changes nothing and leaves no run.

    Raises:
        LineageError: a model is not registered, or its kept report was changed.
    """
    with _alone(layout):
        index(layout)
        current = read.champion(layout)
        verdict = decide(
            _kept_report(layout, candidate.model),
            None if current is None else _kept_report(layout, current.model),
            rules,
        )
        if verdict.champion == verdict.candidate:
            return verdict
        with start_run(layout, "gate", asdict(rules)) as run:
            write_json(run.folder / VERDICT, {**verdict.to_json(), "at": run.record["started"]})
        index(layout)
    return verdict


def index(layout: Layout) -> dict[str, int]:
    """Import every card and run folder that is not in the index yet; return what it holds."""
    with writing(layout) as session:
        return _import(session, layout)


def rebuild(layout: Layout) -> dict[str, int]:
    """Drop the index and import it again; readers see the old one until the new one is whole.

    Cards that were overwritten in artifacts/ before they were registered are forgotten by this.
    """
    with writing(layout, afresh=True) as session:
        return _import(session, layout)


def _import(session: Session, layout: Layout) -> dict[str, int]:
    for card_id, (name, card) in sorted(all_cards(layout).items()):
        _index_card(session, card_id, name, card)
    session.flush()
    for folder, record in all_runs(layout):
        _index_run(session, folder, record)
    session.flush()
    for report_id, report in _reports(layout):
        if session.get(ArtifactRow, report_id) is not None:
            _index_scores(session, report_id, report)
    session.flush()
    return {
        name: session.scalar(select(func.count()).select_from(table)) or 0
        for name, table in Base.metadata.tables.items()
    }


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """Let one process at a time count versions and choose the champion of a workspace."""
    layout.store.mkdir(parents=True, exist_ok=True)
    with (layout.store / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _keep(layout: Layout, model: Card, report: Card) -> None:
    store, cards = LocalFolder(layout.store), all_cards(layout)
    family = _ancestors(cards, model.id) | _ancestors(cards, report.id)
    store.put_folder(f"{model.id}/model", layout.model)
    store.put_folder(f"{model.id}/{read.report_key(report.id)}", layout.report)
    for card_id in family:
        name, card = cards[card_id]
        write_json(layout.store / model.id / CARDS / card_file(name, card_id), card.to_json())


def _record(layout: Layout, candidate: Candidate, *, who: str, reason: str) -> None:
    with start_run(layout, "register", {}) as run:
        facts = {**asdict(candidate), "who": who, "reason": reason, "at": run.record["started"]}
        write_json(run.folder / REGISTRATION, facts)


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


def _judged_model(layout: Layout) -> str:
    return EvalReport.from_json(read_json(layout.report / REPORT)).model


def _kept_report(layout: Layout, model: str) -> EvalReport:
    version = read.version_of(layout, model)
    if version is None:
        raise LineageError(
            f"The model {model[:12]} is not registered.",
            cause="no run folder holds its registration.",
            remedy="register it first; `uni-moe models` shows what is registered.",
        )
    if verified_card(version.report_folder).id != version.report:
        raise LineageError(
            f"{version.report_folder} holds another report than the one registered.",
            cause="the store was changed by hand.",
            remedy="remove the folder and register the model again.",
        )
    return EvalReport.from_json(read_json(version.report_folder / REPORT))


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
        (key, line["step"]): None if math.isnan(value) else value
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
    for folder in (layout.report, *sorted(layout.store.glob(f"*/{read.report_key('*')}"))):
        if (folder / CARD).is_file():
            with suppress(FileNotFoundError):  # it is being replaced at this moment
                report = EvalReport.from_json(read_json(folder / REPORT))
                yield read_card(folder).id, report


def _index_scores(session: Session, report_id: str, report: EvalReport) -> None:
    scopes: dict[str, Mapping[str, Score]] = {"modality": report.modalities, "task": report.tasks}
    for scope, scores in scopes.items():
        for name, score in scores.items():
            session.merge(
                EvaluationRow(
                    report=report_id, scope=scope, name=name, model=report.model, **asdict(score)
                )
            )
