"""Imports the truth on disk, cards and run folders, into the index."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout
from uni_moe.audit_log import REGISTRATION, VERDICT
from uni_moe.errors import LineageError
from uni_moe.records import Card, EvalReport, Score
from uni_moe.registry.cards import (
    all_cards,
    all_reports,
    all_runs,
    json_file,
    json_lines,
    read_report,
)
from uni_moe.registry.importing_data import import_data
from uni_moe.registry.schema import METADATA
from uni_moe.registry.showing import rows_of
from uni_moe.registry.tables import (
    ArtifactRow,
    EdgeRow,
    EvaluationRow,
    MetricRow,
    RunArtifactRow,
    RunRow,
    VerdictRow,
    VersionRow,
)

_ENDED = ("done", "failed")  # a run that seems dead may have slept with its machine
_LOG = logging.getLogger(__name__)


def import_all(
    session: Session, layout: Layout, *, metrics: bool = True, data: bool = True
) -> dict[str, int]:
    """Import what is not in the index yet; return how many rows each table has.

    Metrics and tables of samples are nearly all of the work; a reader that asks for none of them
    leaves them out.

    Raises:
        LineageError: a card or a record cannot be read.
    """
    known = set(session.scalars(select(ArtifactRow.id)))
    cards = all_cards(layout)
    for card_id, (name, card) in sorted(cards.items()):
        if card_id not in known:
            _import_card(session, card_id, name, card)
    session.flush()
    if data:
        import_data(session, layout, cards)
    for folder, record in all_runs(layout, but=_whole_runs(session, layout)):
        _import_run(session, folder, record)
        if metrics:
            _import_metrics(session, record["id"], folder)
    session.flush()
    _import_reports(session, layout)
    session.flush()
    return {name: rows_of(session.connection(), name) for name in METADATA.tables}


def _whole_runs(session: Session, layout: Layout) -> set[str]:
    """Return the runs that the index knows to their end, with the decision that each holds.

    A decision may be written after its run ended: see `indexing`.
    """
    ended = set(session.scalars(select(RunRow.id).where(RunRow.status.in_(_ENDED))))
    for name, run in ((REGISTRATION, VersionRow.run), (VERDICT, VerdictRow.run)):
        there = {file.parent.name for file in layout.runs.glob(f"*/{name}")}
        ended -= there.difference(session.scalars(select(run)))
    return ended


def _import_card(session: Session, card_id: str, name: str, card: Card) -> None:
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


def _import_run(session: Session, folder: Path, record: Mapping[str, Any]) -> None:
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
    _import_facts(session, record["id"], folder)


def _import_metrics(session: Session, run: str, folder: Path) -> None:
    session.execute(delete(MetricRow).where(MetricRow.run == run))
    rows = {
        (key, step): {"run": run, "key": key, "step": step, "value": value}
        for key, step, value in metrics_of(folder)
    }
    if rows:
        session.execute(insert(MetricRow), list(rows.values()))


def metrics_of(folder: Path) -> Iterator[tuple[str, int, float | None]]:
    """Return every number of a run as (key, step, value); None is not a number."""
    for line in json_lines(folder / "metrics.jsonl"):
        for key, value in line.items():
            if key not in ("time", "step") and isinstance(value, int | float):
                yield key, line["step"], None if math.isnan(value) else value


def _import_facts(session: Session, run: str, folder: Path) -> None:
    """Import what a run decided: a registration or a verdict.

    Raises:
        LineageError: the file cannot be read, or lacks what it should say.
    """
    rows: tuple[tuple[str, type[VersionRow | VerdictRow], dict[str, Any]], ...] = (
        (REGISTRATION, VersionRow, {"sequence": 0}),
        (
            VERDICT,
            VerdictRow,
            {"sequence": 0, "candidate_report": None, "champion_report": None, "evidence": {}},
        ),
    )
    for name, row, unsaid in rows:
        told = json_file(folder / name)
        if told is None:
            continue
        wanted = {column.name for column in row.__table__.columns} - {"run"}
        known = unsaid | told if isinstance(told, dict) else {}
        if set(known) != wanted:
            raise LineageError(
                f"{folder / name} does not say {', '.join(sorted(wanted ^ set(known)))}.",
                cause="it was changed by hand, or was written by another version.",
                remedy="bring the file back from a copy; a decision is never guessed.",
            )
        session.merge(row(**known, run=run))


def _import_reports(session: Session, layout: Layout) -> None:
    """Import scores of reports whose card is known."""
    done = set(session.scalars(select(EvaluationRow.report).distinct()))
    known = set(session.scalars(select(ArtifactRow.id)))
    for report_id, folder in all_reports(layout):
        if report_id in known and report_id not in done:
            done.add(report_id)
            try:
                _import_scores(session, report_id, read_report(folder))
            except LineageError as error:  # the gate refuses it; the index goes on without it
                _LOG.warning("left out: %s", error.what)


def _import_scores(session: Session, report_id: str, report: EvalReport) -> None:
    scopes: dict[str, Mapping[str, Score]] = {"modality": report.modalities, "task": report.tasks}
    for scope, scores in scopes.items():
        for name, score in scores.items():
            session.add(
                EvaluationRow(
                    report=report_id, scope=scope, name=name, model=report.model, **asdict(score)
                )
            )
