"""Questions about runs: a page of them by filters and order, and what is known of one.

The index tells of runs that ended. Of one that had not, when it was imported, and of one that came
later, the folder tells the truth: `unsettled` names them, `line_of` reads one, and a page takes
such lines in place of the index's own. So no question opens every folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    CTE,
    ColumnElement,
    Float,
    FromClause,
    Select,
    String,
    and_,
    cast,
    func,
    select,
    union_all,
    values,
)
from sqlalchemy import column as named

from uni_moe.artifacts import Layout
from uni_moe.errors import LineageError
from uni_moe.registry.cards import lines_from, run_record
from uni_moe.registry.database import indexed
from uni_moe.registry.importing import ENDED
from uni_moe.registry.metric_import import METRICS
from uni_moe.registry.metric_tables import MetricFileRow, SeriesRow
from uni_moe.registry.tables import ArtifactRow, RunArtifactRow, RunRow

PAGE = 50
LOSS = "loss"
_MOST_ARTIFACTS = 100  # of a run, whose cards are asked
_LONGEST = 400  # letters of a reason or an error in a line
_TAIL_BYTES = 16_384  # of metrics: the last step is among them
By = Literal["started", "duration_s", "stage", "status", "user", "loss"]


@dataclass(frozen=True)
class RunLine:
    """A run in a table; long texts are cut, and of an error the first line is told."""

    id: str
    stage: str
    status: str  # running, done, failed, or died
    started: str
    duration_s: float | None
    user: str | None
    reason: str | None
    commit: str | None
    error: str | None
    loss: float | None  # the last one


@dataclass(frozen=True)
class RunFilter:
    """Which runs are asked for; None asks for all. `reason` is contained, in any case of ASCII."""

    stage: str | None = None
    status: str | None = None
    user: str | None = None
    reason: str | None = None
    since: str | None = None  # moments in UTC, as records write them
    until: str | None = None


@dataclass(frozen=True)
class RunOrder:
    """By what runs are ordered; equal ones by their ids, and those without it come last."""

    by: By = "started"
    descending: bool = True


@dataclass(frozen=True)
class RunPage:
    """Some runs in an order, and how many there are on all pages."""

    lines: tuple[RunLine, ...]
    total: int


@dataclass(frozen=True)
class Unsettled:
    """Runs of which the index does not know the end, the newest first; it lacks `unknown` ones."""

    runs: tuple[str, ...]
    unknown: int


@dataclass(frozen=True)
class RunChoices:
    """What may be chosen among the runs of the index."""

    stages: tuple[str, ...]
    users: tuple[str, ...]


_NEWEST = RunOrder()
_COLUMNS = tuple(RunLine.__dataclass_fields__)
_NUMBERS = ("duration_s", "loss")


def run_page(
    layout: Layout,
    wanted: RunFilter,
    fresh: Sequence[RunLine] = (),
    order: RunOrder = _NEWEST,
    page: int = 1,
) -> RunPage:
    """Return a page of the runs that are wanted.

    Args:
        layout: the workspace.
        wanted: the filters.
        fresh: lines that are newer than those of the index, or that it does not know.
        order: by what.
        page: which one; the first is 1.
    """
    runs = _runs(fresh)
    conditions = tuple(_conditions(runs, wanted))
    by, last = runs.c[order.by], runs.c.id
    way = [by.desc(), last.desc()] if order.descending else [by, last]
    absent = [by.is_(None)] if order.by in (*_NUMBERS, "user") else []
    asked = select(*(runs.c[name] for name in _COLUMNS)).where(*conditions)
    asked = asked.order_by(*absent, *way).limit(PAGE).offset((max(1, page) - 1) * PAGE)
    with indexed(layout) as session:
        total = session.scalar(select(func.count()).select_from(runs).where(*conditions)) or 0
        return RunPage(tuple(_line(row) for row in session.execute(asked)), total)


def run_choices(layout: Layout) -> RunChoices:
    """Return the stages and the people of all runs that the index knows."""
    with indexed(layout) as session:
        stages, users = (
            session.scalars(select(column).where(column.is_not(None)).distinct().order_by(column))
            for column in (RunRow.stage, RunRow.user)
        )
        return RunChoices(*(tuple(str(name) for name in names) for names in (stages, users)))


def unsettled(layout: Layout) -> Unsettled:
    """Return the runs whose folders know more than the index."""
    there = set(folder_names(layout))
    with indexed(layout) as session:
        known = dict(session.execute(select(RunRow.id, RunRow.status)).tuples().all())
    unknown = there - known.keys()
    open_ = {run for run, status in known.items() if status not in ENDED} & there
    return Unsettled(tuple(sorted(unknown | open_, reverse=True)), len(unknown))


def folder_names(layout: Layout) -> list[str]:
    """Return the names of run folders, oldest first: a name begins with the moment."""
    try:
        with os.scandir(layout.runs) as entries:
            return sorted(one.name for one in entries if not one.name.startswith("."))
    except OSError:
        return []


def line_of(layout: Layout, run: str) -> RunLine | None:
    """Return a run's line from its folder, None where it has no record.

    Raises:
        LineageError: the record cannot be read.
    """
    record = record_of(layout, run)
    if record is None:
        return None
    told = {name: record.get(name) for name in _COLUMNS}
    return _cut(told | {"id": run, "loss": last_loss(layout, run)})


def record_of(layout: Layout, run: str) -> dict[str, Any] | None:
    """Return a run's record from its folder with the status of this moment, None where it is gone.

    Raises:
        LineageError: it cannot be read, or lacks what every record says.
    """
    try:
        record = run_record(layout.runs / run)
        if record is not None:
            str(record["stage"]), datetime.fromisoformat(record["started"])
    except (KeyError, TypeError, ValueError) as error:
        raise LineageError(
            f"The record of the run {run} cannot be read.",
            cause=f"it was changed by hand, or was written by another version: {error!r}.",
            remedy="bring its run.json back from a copy, or move the folder out of runs/.",
        ) from error
    return record


def last_loss(layout: Layout, run: str) -> float | None:
    """Return the last loss that a run's folder tells, None where it tells none."""
    file = layout.runs / run / METRICS
    with suppress(OSError):
        size = file.stat().st_size
        lines, _ = lines_from(file, max(0, size - _TAIL_BYTES), _TAIL_BYTES)
        told = [line[LOSS] for line in lines if isinstance(line.get(LOSS), int | float)]
        return float(told[-1]) if told else None
    return None


def run_row(layout: Layout, run: str) -> dict[str, Any] | None:
    """Return a run's record as far as the index holds it, with its artifacts; None if unknown."""
    with indexed(layout) as session:
        row = session.get(RunRow, run)
        if row is None:
            return None
        made = select(RunArtifactRow.name, RunArtifactRow.artifact).where(RunArtifactRow.run == run)
        record = {column.name: getattr(row, column.name) for column in RunRow.__table__.columns}
        return record | {"artifacts": dict(session.execute(made).tuples().all())}


def params_of(layout: Layout, artifacts: Sequence[str]) -> dict[str, Any]:
    """Return the parameters that the cards of artifacts tell, as far as the index knows them."""
    asked = select(ArtifactRow.params).where(ArtifactRow.id.in_(artifacts[:_MOST_ARTIFACTS]))
    with indexed(layout) as session:
        found: dict[str, Any] = {}
        for params in session.scalars(asked.order_by(ArtifactRow.id)):
            found |= params
        return found


def has_all_metrics(layout: Layout, run: str) -> bool:
    """Say whether the index holds a run's metrics to their end, so that its file adds nothing."""
    with indexed(layout) as session:
        file = session.get(MetricFileRow, run)
        return file is not None and file.is_whole


def _runs(fresh: Sequence[RunLine]) -> FromClause:
    """Return all runs as one table: those of the index, and the fresh ones in their places."""
    told = {name: getattr(RunRow, name) for name in _COLUMNS if name != "loss"}
    for name in ("reason", "error"):
        told[name] = func.substr(told[name], 1, _LONGEST).label(name)
    loss = and_(SeriesRow.run == RunRow.id, SeriesRow.key == LOSS)
    indexed_ = select(*told.values(), SeriesRow.last.label("loss")).outerjoin(SeriesRow, loss)
    if not fresh:
        return indexed_.subquery("lines")
    newer = _table(fresh)
    others = indexed_.where(RunRow.id.not_in(select(newer.c.id)))
    return union_all(others, _typed(newer)).subquery("lines")


def _table(lines: Sequence[RunLine]) -> CTE:
    columns = (named(name, Float if name in _NUMBERS else String) for name in _COLUMNS)
    return values(*columns, name="fresh").data([astuple(line) for line in lines]).cte("fresh")


def _typed(table: CTE) -> Select[Any]:
    """Return the columns with their types, which a database cannot see where all are absent."""
    return select(
        *(
            cast(table.c[name], Float if name in _NUMBERS else String).label(name)
            for name in _COLUMNS
        )
    )


def _conditions(runs: FromClause, wanted: RunFilter) -> Iterator[ColumnElement[bool]]:
    for name in ("stage", "status", "user"):
        value = getattr(wanted, name)
        if value is not None:
            yield runs.c[name] == value
    if wanted.reason is not None:
        yield runs.c.reason.icontains(wanted.reason, autoescape=True)
    if wanted.since is not None:
        yield runs.c.started >= wanted.since
    if wanted.until is not None:
        yield runs.c.started <= wanted.until


def _line(row: Any) -> RunLine:  # noqa: ANN401 - a row of any question
    return _cut(dict(zip(_COLUMNS, row, strict=True)))


def _cut(told: dict[str, Any]) -> RunLine:
    for name in ("reason", "error"):
        if told[name] is not None:
            told[name] = str(told[name])[:_LONGEST]
    if told["error"] is not None:
        told["error"] = (told["error"].splitlines() or [""])[0]
    return RunLine(**told)
