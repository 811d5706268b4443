"""The tables of the index, in SQLAlchemy's 2.0 style."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from uni_moe.registry.base import Base


class ArtifactRow(Base):
    """An artifact, by the id of its card."""

    __tablename__ = "artifacts"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    stage: Mapped[str]
    kind: Mapped[str] = mapped_column(index=True)
    code: Mapped[str]
    params: Mapped[dict[str, Any]]
    results: Mapped[dict[str, Any]]


class EdgeRow(Base):
    """A child artifact was made from a parent, known by its name in the workspace then."""

    __tablename__ = "edges"
    child: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    parent: Mapped[str] = mapped_column(index=True)


class RunRow(Base):
    """One execution of a stage."""

    __tablename__ = "runs"
    id: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str] = mapped_column(index=True)
    status: Mapped[str] = mapped_column(index=True)
    started: Mapped[str] = mapped_column(index=True)
    ended: Mapped[str | None]
    duration_s: Mapped[float | None]
    user: Mapped[str | None]
    host: Mapped[str | None]
    reason: Mapped[str | None]
    commit: Mapped[str | None]
    error: Mapped[str | None]


class RunArtifactRow(Base):
    """A run made an artifact."""

    __tablename__ = "run_artifacts"
    run: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    artifact: Mapped[str] = mapped_column(index=True)


class EvaluationRow(Base):
    """A model's score on a modality or a task, by the report that says so."""

    __tablename__ = "evaluations"
    report: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), primary_key=True)
    scope: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(index=True)
    n: Mapped[int]
    score: Mapped[float]
    low: Mapped[float]
    high: Mapped[float]
    chance: Mapped[float]
    majority: Mapped[float]
    question_only: Mapped[float]
    swapped: Mapped[float | None]


class VersionRow(Base):
    """A registration of a model. A model that is judged again keeps its number."""

    __tablename__ = "versions"
    run: Mapped[str] = mapped_column(primary_key=True)
    sequence: Mapped[int]
    number: Mapped[int] = mapped_column(index=True)
    model: Mapped[str] = mapped_column(index=True)
    report: Mapped[str]
    at: Mapped[str]
    who: Mapped[str]
    reason: Mapped[str]


class VerdictRow(Base):
    """A decision of the gate. The last promoted one names the champion."""

    __tablename__ = "verdicts"
    run: Mapped[str] = mapped_column(primary_key=True)
    sequence: Mapped[int]
    at: Mapped[str]
    candidate: Mapped[str]
    candidate_report: Mapped[str | None]
    champion: Mapped[str | None]
    champion_report: Mapped[str | None]
    promoted: Mapped[bool]
    reasons: Mapped[list[Any]]
    evidence: Mapped[dict[str, Any]]
    __table_args__ = (Index("verdicts_in_order", "sequence"),)


class OwnerRow(Base):
    """The workspace that this index belongs to."""

    __tablename__ = "owner"
    workspace: Mapped[str] = mapped_column(primary_key=True)


# Verdicts as they fell. They are counted; the clock decides only among those of older versions.
IN_ORDER = (VerdictRow.sequence, VerdictRow.at, VerdictRow.run)


def champion_id(session: Session) -> str | None:
    """Return the card id of the model that was promoted last, None where none was."""
    return session.scalars(
        select(VerdictRow.candidate)
        .where(VerdictRow.promoted)
        .order_by(*(column.desc() for column in IN_ORDER))
        .limit(1)
    ).first()
