"""Questions about metrics: which runs are best by a number, what a run told, and its curves.

They ask the index, which knows what the last import brought; `metrics` asks the run's folder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    TextualSelect,
    and_,
    bindparam,
    column,
    exists,
    func,
    select,
    text,
)
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout
from uni_moe.errors import LineageError
from uni_moe.registry.cards import json_lines
from uni_moe.registry.database import reading
from uni_moe.registry.metric_tables import TIME, NotFiniteRow, PointRow, SeriesRow
from uni_moe.registry.points import points_of
from uni_moe.registry.tables import RunRow
from uni_moe.runs import METRICS, RECORD

_PARTS = """
    WITH RECURSIVE part(n) AS (
        SELECT CAST(0 AS BIGINT) UNION ALL SELECT n + 1 FROM part WHERE n + 1 < :parts
    )
"""
_INSIDE = """
    series = :series AND step >= :first + n * CAST(:span AS BIGINT) / :parts
    AND step < :first + (n + 1) * CAST(:span AS BIGINT) / :parts
"""
"""Every part reads its own steps alone, in the order in which they lie."""


@dataclass(frozen=True)
class RunNumber:
    """A run by one of its metrics, at its last step."""

    run: str
    stage: str
    status: str
    started: str
    last: float
    last_step: int
    least: float
    greatest: float

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Series:
    """What a run told under one key; numbers are None where none was finite, or the last is not."""

    key: str
    points: int
    last_step: int
    last: float | None
    least: float | None
    greatest: float | None


@dataclass(frozen=True)
class Point:
    """A number of one step, which may be nan, inf or -inf."""

    step: int
    value: float


_BY_LAST = (
    select(
        *(RunRow.id, RunRow.stage, RunRow.status, RunRow.started),
        *(SeriesRow.last, SeriesRow.last_step, SeriesRow.least, SeriesRow.greatest),
    )
    .join(RunRow, RunRow.id == SeriesRow.run)
    .where(SeriesRow.key == bindparam("of"), SeriesRow.last.is_not(None))
    .limit(bindparam("most"))
)
_TOP = {
    "largest": _BY_LAST.order_by(SeriesRow.last.desc()),
    "smallest": _BY_LAST.order_by(SeriesRow.last),
}


def top_runs(
    layout: Layout, key: str, n: int, order: Literal["largest", "smallest"] = "largest"
) -> list[RunNumber]:
    """Return the n runs whose last number under a key is the largest, or the smallest."""
    with reading(layout, metrics=True) as session:
        found = session.connection().execute(_TOP[order], {"of": key, "most": n})
        return [RunNumber(*row) for row in found.all()]


def metric_keys(layout: Layout, run: str) -> dict[str, Series]:
    """Return what a run told, by key.

    Raises:
        LineageError: the index knows no such run.
    """
    facts = (getattr(SeriesRow, name) for name in Series.__dataclass_fields__)
    asked = select(*facts).where(SeriesRow.run == run, SeriesRow.key != TIME)
    with reading(layout, metrics=True) as session:
        _known_run(session, run)
        found = [Series(*row) for row in session.execute(asked.order_by(SeriesRow.key))]
    return {series.key: series for series in found}


def curve(
    layout: Layout,
    run: str,
    key: str,
    steps: tuple[int, int] | None = None,
    *,
    at_most: int = 1000,
) -> list[Point]:
    """Return a run's numbers under a key, in the order of steps; `steps` is from which to which.

    Of more than `at_most` the steps are cut into equal parts, of each of which stay the least and
    the greatest number, and the first that is not finite where there is one.

    Raises:
        LineageError: the index knows no such run; a key that it never told has no points.
    """
    with reading(layout, metrics=True) as session:
        _known_run(session, run)
        own = SeriesRow.run == run, SeriesRow.key == key
        series = session.scalar(select(SeriesRow.id).where(*own))
        if series is None:
            return []
        inside = (
            PointRow.series == series,
            *(() if steps is None else (PointRow.step.between(*steps),)),
        )
        return _thinned(session, series, inside, at_most)


def not_finite(layout: Layout, run: str, key: str) -> dict[str, int]:
    """Return how many of a run's numbers under a key were nan, inf or -inf."""
    asked = (
        select(NotFiniteRow.kind, func.count())
        .join(SeriesRow, SeriesRow.id == NotFiniteRow.series)
        .where(SeriesRow.run == run, SeriesRow.key == key)
        .group_by(NotFiniteRow.kind)
    )
    with reading(layout, metrics=True) as session:
        return dict(session.execute(asked).tuples().all())


def metrics(layout: Layout, run: str) -> dict[str, list[tuple[int, float | None]]]:
    """Return key -> (step, value) of a run, from its folder: the index may be behind.

    Raises:
        LineageError: there is no such run.
    """
    folder = layout.runs / run
    if not (folder / RECORD).is_file():
        raise _no_run(run, "its folder is not in runs/.")
    found: dict[str, list[tuple[int, float | None]]] = {}
    for key, step, value in points_of(json_lines(folder / METRICS)):
        if key != TIME:
            found.setdefault(key, []).append((step, None if math.isnan(value) else value))
    return found


def _thinned(
    session: Session, series: int, inside: Sequence[ColumnElement[bool]], at_most: int
) -> list[Point]:
    """Return the points inside, or those that stand for them where they are too many."""
    count, first, last = session.execute(
        select(func.count(), func.min(PointRow.step), func.max(PointRow.step)).where(*inside)
    ).one()
    if count > at_most:
        steps = _extremes(session, series, first, last, at_most)
        inside = (PointRow.series == series, PointRow.step.in_(steps))
    kind = and_(NotFiniteRow.series == PointRow.series, NotFiniteRow.step == PointRow.step)
    asked = (
        select(PointRow.step, PointRow.value, NotFiniteRow.kind)
        .outerjoin(NotFiniteRow, kind)
        .where(*inside)
        .order_by(PointRow.step)
    )
    return [
        Point(step, float(kind or "nan") if value is None else value)
        for step, value, kind in session.execute(asked)
    ]


def _extremes(session: Session, series: int, first: int, last: int, at_most: int) -> TextualSelect:
    """Return a question for the steps that stand for all from the first to the last."""
    odd = exists().where(
        NotFiniteRow.series == series, NotFiniteRow.step >= first, NotFiniteRow.step <= last
    )
    wanted = [
        "value IS NOT NULL ORDER BY value, step",
        "value IS NOT NULL ORDER BY value DESC, step",
    ]
    if session.scalar(select(odd)):
        wanted.append("value IS NULL ORDER BY step")
    parts = " UNION ".join(
        f"SELECT (SELECT step FROM points WHERE {_INSIDE} AND {one} LIMIT 1) FROM part"
        for one in wanted
    )
    told = {"series": series, "first": first, "span": last - first + 1}
    told["parts"] = max(1, at_most // len(wanted))
    return text(_PARTS + parts).bindparams(**told).columns(column("step", BigInteger))


def _known_run(session: Session, run: str) -> None:
    if session.get(RunRow, run) is None:
        raise _no_run(run, "the index knows none of this name.")


def _no_run(run: str, cause: str) -> LineageError:
    return LineageError(
        f"There is no run {run}.",
        cause=cause,
        remedy="take the name of a folder in runs/, or run `uni-moe index` first.",
    )
