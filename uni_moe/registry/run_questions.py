"""Questions about runs: a page of them by filters and order, and what is known of one.

The index tells of runs that ended. Of one that had not, when it was imported, and of one that came
later, the folder tells the truth: `unsettled` names them, `run_lines` reads one, and a page takes
such lines in place of the index's own. So no question opens every folder.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    FromClause,
    and_,
    func,
    select,
)
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout
from uni_moe.registry.database import indexed
from uni_moe.registry.importing import ENDED
from uni_moe.registry.metric_tables import MetricFileRow, SeriesRow
from uni_moe.registry.ordering import ByCode
from uni_moe.registry.run_lines import LONGEST, LOSS, RunLine, cut, folder_names
from uni_moe.registry.tables import ArtifactRow, RunArtifactRow, RunRow

PAGE = 50
_AT_ONCE = 500  # values that one statement names
By = Literal["started", "duration_s", "stage", "status", "user", "loss"]


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
    first = (max(1, page) - 1) * PAGE
    newer = {line.id: line for line in fresh}
    told = [(line.id, getattr(line, order.by)) for line in fresh if _is_wanted(line, wanted)]
    conditions = _beside(fresh, wanted)
    count = select(func.count()).select_from(RunRow).where(*conditions)
    start = max(0, first - len(told))  # told ones before it stand before the page, too
    keys = select(RunRow.id, _COLUMN[order.by]).select_from(_place(order.by)).where(*conditions)
    keys = keys.order_by(*_way(order)).offset(start).limit(first + PAGE - start)
    with indexed(layout) as session:
        total = (session.scalar(count) or 0) + len(told)
        found = _in_order([*told, *session.execute(keys).tuples()], order)
        lines = _lines(session, found[first - start : first - start + PAGE], newer)
        return RunPage(lines, total)


def run_counts(layout: Layout, wanted: RunFilter, fresh: Sequence[RunLine] = ()) -> dict[str, int]:
    """Return how many of the runs that are wanted have which status; arguments as of `run_page`."""
    told = Counter(line.status for line in fresh if _is_wanted(line, wanted))
    asked = select(RunRow.status, func.count()).where(*_beside(fresh, wanted))
    with indexed(layout) as session:
        told.update(dict(session.execute(asked.group_by(RunRow.status)).tuples().all()))
    return dict(told)


def run_choices(layout: Layout) -> RunChoices:
    """Return the stages and the people of all runs that the index knows."""
    with indexed(layout) as session:
        stages, users = (
            session.scalars(select(column).where(column.is_not(None)).distinct())
            for column in (RunRow.stage, RunRow.user)
        )
        return RunChoices(*(tuple(sorted(map(str, names))) for names in (stages, users)))


def unsettled(layout: Layout) -> Unsettled:
    """Return the runs whose folders know more than the index."""
    there = set(folder_names(layout))
    with indexed(layout) as session:
        known = dict(session.execute(select(RunRow.id, RunRow.status)).tuples().all())
    unknown = there - known.keys()
    open_ = {run for run, status in known.items() if status not in ENDED} & there
    return Unsettled(tuple(sorted(unknown | open_, reverse=True)), len(unknown))


def run_row(layout: Layout, run: str) -> dict[str, Any] | None:
    """Return a run's record as far as the index holds it, with its artifacts; None if unknown."""
    with indexed(layout) as session:
        row = session.get(RunRow, run)
        if row is None:
            return None
        made = select(RunArtifactRow.name, RunArtifactRow.artifact).where(RunArtifactRow.run == run)
        record = {column.name: getattr(row, column.name) for column in RunRow.__table__.columns}
        return record | {"artifacts": dict(session.execute(made).tuples().all())}


def params_of(layout: Layout, artifacts: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters that the cards of artifacts tell, as far as the index knows them.

    Where cards tell one parameter differently, each stands under its artifact's name.

    Args:
        layout: the workspace.
        artifacts: name -> id.
    """
    told: dict[str, dict[str, Any]] = {}
    ids = sorted(set(artifacts.values()))
    with indexed(layout) as session:
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            asked = select(ArtifactRow.id, ArtifactRow.params).where(ArtifactRow.id.in_(part))
            told |= dict(session.execute(asked).tuples().all())
    found: dict[str, Any] = {}
    for key in sorted({key for params in told.values() for key in params}):
        own = {n: told[i][key] for n, i in sorted(artifacts.items()) if key in told.get(i, {})}
        first = next(iter(own.values()))
        found[key] = first if all(value == first for value in own.values()) else own
    return found


def has_all_metrics(layout: Layout, run: str) -> bool:
    """Say whether the index holds a run's metrics to their end, so that its file adds nothing."""
    with indexed(layout) as session:
        file = session.get(MetricFileRow, run)
        return file is not None and file.is_whole


def _lines(session: Session, ids: Sequence[str], newer: dict[str, RunLine]) -> tuple[RunLine, ...]:
    """Return the lines of ids, in their order."""
    asked = select(*(column.label(name) for name, column in _COLUMN.items()))
    rows = session.execute(asked.select_from(_place(LOSS)).where(RunRow.id.in_(ids)))
    found = {row["id"]: cut(dict(row)) for row in rows.mappings()} | newer
    return tuple(found[run] for run in ids)


def _beside(fresh: Sequence[RunLine], wanted: RunFilter) -> list[ColumnElement[bool]]:
    """Return what a row fulfils that is wanted and of which no line is newer."""
    newer = [line.id for line in fresh]
    return [*_conditions(wanted), *([RunRow.id.not_in(newer)] if newer else [])]


def _conditions(wanted: RunFilter) -> Iterator[ColumnElement[bool]]:
    for name in _EQUAL:
        value = getattr(wanted, name)
        if value is not None:
            yield _COLUMN[name] == value
    if wanted.reason is not None:
        yield _COLUMN["reason"].icontains(wanted.reason, autoescape=True)
    if wanted.since is not None:
        yield ByCode(_COLUMN["started"]) >= wanted.since
    if wanted.until is not None:
        yield ByCode(_COLUMN["started"]) <= wanted.until


def _is_wanted(line: RunLine, wanted: RunFilter) -> bool:
    """Say of a line from a folder what the database says of its own."""
    asked = wanted.reason
    return (
        all(getattr(wanted, name) in (None, getattr(line, name)) for name in _EQUAL)
        and (asked is None or _lower(asked) in _lower(line.reason or ""))
        and (wanted.since is None or line.started >= wanted.since)
        and (wanted.until is None or line.started <= wanted.until)
    )


def _lower(text: str) -> bytes:
    return text.encode(errors="replace").lower()  # of ASCII alone


def _way(order: RunOrder) -> list[ColumnElement[Any]]:
    """Return the order of a page; one by a column that is never absent can follow its index."""
    column = _COLUMN[order.by]
    absent: list[ColumnElement[Any]] = [column.is_(None)] if order.by in _MAY_BE_ABSENT else []
    key = column if order.by in _NUMBERS else ByCode(column)
    keys = (key, ByCode(RunRow.id))
    return [*absent, *(one.desc() if order.descending else one.asc() for one in keys)]


def _in_order(told: Sequence[tuple[str, Any]], order: RunOrder) -> list[str]:
    """Return ids by what orders them, in the order in which the database gives its own."""
    told = [(run, None if _is_odd(value) else value) for run, value in told]
    there = sorted(
        (one for one in told if one[1] is not None),
        key=lambda one: (one[1], one[0]),
        reverse=order.descending,
    )
    absent = sorted((one[0] for one in told if one[1] is None), reverse=order.descending)
    return [*(one[0] for one in there), *absent]


def _is_odd(value: object) -> bool:
    """Say whether a number is not finite: the index holds such a last one as absent."""
    return isinstance(value, float) and not math.isfinite(value)


def _column(name: str) -> ColumnElement[Any]:
    """Return a column of runs, of a long text its beginning."""
    if name == LOSS:
        return SeriesRow.__table__.c.last
    column: ColumnElement[Any] = RunRow.__table__.c[name]
    return func.substr(column, 1, LONGEST) if name in ("reason", "error") else column


def _place(by: str) -> FromClause:
    """Return the table of runs, with their losses where these are asked for."""
    runs, series = RunRow.__table__, SeriesRow.__table__
    if by != LOSS:
        return runs
    return runs.outerjoin(series, and_(series.c.run == runs.c.id, series.c.key == LOSS))


_COLUMN = {name: _column(name) for name in RunLine.__dataclass_fields__}
_EQUAL = ("stage", "status", "user")
_NUMBERS = ("duration_s", LOSS)
_MAY_BE_ABSENT = (*_NUMBERS, "user")
