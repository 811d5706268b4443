"""The tables of the index, in SQLAlchemy's 2.0 style. SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Engine,
    ForeignKey,
    Index,
    create_engine,
    event,
    func,
    inspect,
    select,
)
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from uni_moe.artifacts import Layout
from uni_moe.errors import ConfigError

URL = "UNI_MOE_DATABASE_URL"
_TURN = 0x756E696D6F65  # any number that all writers of this index agree on


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
    """One number of one step of a run; None where it was not a number."""

    __tablename__ = "metrics"
    run: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float | None]
    __table_args__ = ({"sqlite_with_rowid": False},)  # the key is the table


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


@contextmanager
def writing(layout: Layout, *, afresh: bool = False) -> Iterator[Session]:
    """Give a session whose work appears at its end, whole; writers take turns.

    Tables are made where they are missing; `afresh` drops them first, inside the same transaction.
    """
    engine = _open(layout, begin="BEGIN IMMEDIATE")
    try:
        with Session(engine) as session, session.begin():
            if engine.dialect.name == "postgresql":
                session.execute(select(func.pg_advisory_xact_lock(_TURN)))
            if afresh:
                Base.metadata.drop_all(session.connection())
            Base.metadata.create_all(session.connection())
            yield session
    finally:
        engine.dispose()


@contextmanager
def reading(layout: Layout) -> Iterator[Session]:
    """Give a session for questions, all about one moment. Where there is no index, it is empty."""
    engine = _open(layout, begin="BEGIN")
    if not _is_there(engine):
        engine.dispose()
        engine = create_engine("sqlite://")
        Base.metadata.create_all(engine)
    try:
        with engine.connect() as connection, Session(connection) as session:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA query_only=ON")
            yield session
    finally:
        engine.dispose()


def _open(layout: Layout, *, begin: str) -> Engine:
    """Return the index's engine. SQLite runs in WAL mode, waits for a writer, keeps foreign keys.

    `begin` is said by us: left to itself, the driver begins late, after DDL and SELECT.
    """
    try:
        engine = create_engine(os.environ.get(URL, f"sqlite:///{layout.registry}"))
    except (ArgumentError, ModuleNotFoundError) as error:
        raise ConfigError(
            f"The database that {URL} names cannot be used.",
            cause=str(error),
            remedy="for PostgreSQL, `pip install 'psycopg[binary]'` and write the address as "
            "postgresql+psycopg://user@host/name; without the variable SQLite is used.",
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _settle)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _is_there(engine: Engine) -> bool:
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").is_file():
        return False
    return inspect(engine).has_table(VersionRow.__tablename__)


def _settle(connection: Any, _: object) -> None:  # noqa: ANN401 - a DBAPI connection
    connection.isolation_level = None
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
