"""The tables of the index, in SQLAlchemy's 2.0 style. SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy import JSON, Engine, ForeignKey, Index, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from uni_moe.artifacts import Layout

URL = "UNI_MOE_DATABASE_URL"


class Base(DeclarativeBase):
    """All tables."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012 - SQLAlchemy's


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


class MetricRow(Base):
    """One number of one step of a run."""

    __tablename__ = "metrics"
    run: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float]
    __table_args__ = ({"sqlite_with_rowid": False},)


class ScoreRow(Base):
    """A model's score on a modality or a task."""

    __tablename__ = "scores"
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
    """A registered model."""

    __tablename__ = "versions"
    number: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(unique=True)
    report: Mapped[str]
    at: Mapped[str]
    who: Mapped[str]
    reason: Mapped[str]
    run: Mapped[str]


class VerdictRow(Base):
    """A decision of the gate. The last promoted one names the champion."""

    __tablename__ = "verdicts"
    run: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[str]
    candidate: Mapped[str]
    champion: Mapped[str | None]
    promoted: Mapped[bool]
    reasons: Mapped[list[Any]]
    __table_args__ = (Index("verdicts_in_order", "at"),)


def open_engine(layout: Layout) -> Engine:
    """Return the index's engine with all tables, made where they are missing.

    SQLite runs in WAL mode, waits up to 30 s for a writer and keeps foreign keys.
    """
    url = os.environ.get(URL, f"sqlite:///{layout.registry}")
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _settle)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    Base.metadata.create_all(engine)
    return engine


def _settle(connection: Any, _: object) -> None:  # noqa: ANN401 - a DBAPI connection
    connection.isolation_level = None
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("PRAGMA foreign_keys=ON")
