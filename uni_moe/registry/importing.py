"""Imports the truth on disk into the index: cards, records of runs, decisions and reports."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout
from uni_moe.audit_log import REGISTRATION, VERDICT
from uni_moe.errors import LineageError
from uni_moe.records import Card, EvalReport, Score
from uni_moe.registry.cards import (
    all_reports,
    all_runs,
    json_file,
    read_report,
)
from uni_moe.registry.importing_data import import_data, import_sources
from uni_moe.registry.made import known_cards
from uni_moe.registry.tables import (
    ArtifactRow,
    EdgeRow,
    EvaluationRow,
    RunArtifactRow,
    RunRow,
    VerdictRow,
    VersionRow,
)

ENDED = ("done", "failed")  # a run that seems dead may have slept with its machine
_LOG = logging.getLogger(__name__)
_RUN = tuple(column.name for column in RunRow.__table__.columns)
# Made once: a run is put in within a millisecond or two, the disk aside.
_NEW = insert(RunRow)
_CHANGED = (
    update(RunRow)
    .where(RunRow.id == bindparam("its_id"))
    .values({name: bindparam(f"its_{name}") for name in _RUN})
)
_MADE_AGAIN = update(RunArtifactRow).where(
    RunArtifactRow.run == bindparam("its_run"), RunArtifactRow.name == bindparam("its_name")
)


def import_graph(session: Session, layout: Layout, *, data: bool = True) -> None:
    """Import what is not in the index yet, metrics aside, and tables of samples only with `data`.

    Raises:
        LineageError: a card or a record cannot be read.
    """
    known = set(session.scalars(select(ArtifactRow.id)))
    runs = all_runs(layout, but=_whole_runs(session, layout))  # before the cards that they made
    cards = known_cards(layout, but=known)
    for card_id, (name, card) in sorted(cards.items()):
        if card_id not in known:
            _import_card(session, card_id, name, card)
    session.flush()
    import_sources(session, cards)
    if data:
        import_data(session, layout, cards)
    for folder, record in runs:
        import_run(session.connection(), record)
        _import_facts(session, record["id"], folder)
    session.flush()
    _import_reports(session, layout)
    session.flush()


def _whole_runs(session: Session, layout: Layout) -> set[str]:
    """Return the runs that the index knows to their end, with the decision that each holds.

    A decision may be written after its run ended: see `indexing`.
    """
    ended = set(session.scalars(select(RunRow.id).where(RunRow.status.in_(ENDED))))
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


def import_run(connection: Connection, record: Mapping[str, Any]) -> None:
    """Import a run's record, again where it has changed."""
    row = {f"its_{name}": record.get(name) for name in _RUN}
    if connection.execute(_CHANGED, row).rowcount == 0:
        connection.execute(_NEW, {name: record.get(name) for name in _RUN})
    for name, artifact in record["artifacts"].items():
        made = {"its_run": record["id"], "its_name": name, "artifact": artifact}
        if connection.execute(_MADE_AGAIN, made).rowcount == 0:
            own = {"run": record["id"], "name": name, "artifact": artifact}
            connection.execute(insert(RunArtifactRow), own)


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
