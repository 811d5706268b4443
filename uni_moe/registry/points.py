"""Metric points: what the lines of a run say, and how they get into their series.

The last that is told of a step counts. A point beyond the last step, which nearly every one is,
costs an insert and changes the series' summary; one that is told again has the summary counted
anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from uni_moe.registry.metric_tables import TIME, NotFiniteRow, PointRow, SeriesRow

Told = Mapping[str, Mapping[int, float]]
"""key -> step -> number"""
_MARK = {"sqlite": "?", "postgresql": "%s"}
_MOST_STEP = 2**63
_KEYS_AT_ONCE = 500  # in one question: databases take so many and not many more


@dataclass(frozen=True)
class Summary:
    """What a series says of its points. What is not finite is None."""

    points: int
    last_step: int
    last: float | None
    least: float | None
    greatest: float | None


def told(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """Return the numbers in lines of a run's metrics, the last of each step."""
    found: dict[str, dict[int, float]] = {}
    for key, step, number in points_of(lines):
        found.setdefault(key, {})[step] = number
    return found


def points_of(lines: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, int, float]]:
    """Return key, step and number of all that lines say, the time of each line among them.

    A line without a whole number as its step was broken and says nothing.
    """
    for line in lines:
        step = line.get("step")
        if not isinstance(step, int) or not -_MOST_STEP <= step < _MOST_STEP:
            continue
        for key, value in line.items():
            if key == TIME and isinstance(value, str):
                seconds = _seconds(value)
                if seconds is not None:
                    yield key, step, seconds
            elif key != "step" and isinstance(value, int | float):
                yield key, step, _number(value)


def summed(known: Summary | None, told_: Mapping[int, float]) -> Summary | None:
    """Return a series' summary with these points; None where some of them were told before."""
    if known is not None and min(told_) <= known.last_step:
        return None
    finite = [number for number in told_.values() if math.isfinite(number)]
    before = known or Summary(0, 0, None, None, None)
    last_step = max(told_)
    last = told_[last_step]
    return Summary(
        points=before.points + len(told_),
        last_step=last_step,
        last=last if math.isfinite(last) else None,
        least=min((*finite, *_there(before.least)), default=None),
        greatest=max((*finite, *_there(before.greatest)), default=None),
    )


def add(connection: Connection, run: str, numbers_: Told) -> None:
    """Put numbers of a run into its series; the caller's transaction makes it whole."""
    for keys in _in_parts(sorted(numbers_)):
        known = _known(connection, run, keys)
        new = {key: summed(None, numbers_[key]) for key in keys if key not in known}
        grown = {key: summed(known[key].summary, numbers_[key]) for key in known}
        if new:
            rows = [{"run": run, "key": key, **_facts(one)} for key, one in new.items()]
            connection.execute(insert(SeriesRow), rows)
            known |= _known(connection, run, list(new))
        again = {key for key, summary in grown.items() if summary is None}
        _put(connection, {known[key].id: numbers_[key] for key in keys if key not in again})
        _put_again(connection, {known[key].id: numbers_[key] for key in again})
        _update(
            connection,
            {
                known[key].id: summary or _counted(connection, known[key].id)
                for key, summary in grown.items()
            },
        )


def remove(connection: Connection, run: str) -> None:
    """Remove every number of a run."""
    own = select(SeriesRow.id).where(SeriesRow.run == run)
    for table in (PointRow, NotFiniteRow):
        connection.execute(delete(table).where(table.series.in_(own)))
    connection.execute(delete(SeriesRow).where(SeriesRow.run == run))


@dataclass(frozen=True)
class _Series:
    """A series that is there."""

    id: int
    summary: Summary


def _known(connection: Connection, run: str, keys: Sequence[str]) -> dict[str, _Series]:
    facts = (getattr(SeriesRow, name) for name in Summary.__dataclass_fields__)
    asked = select(SeriesRow.key, SeriesRow.id, *facts).where(
        SeriesRow.run == run, SeriesRow.key.in_(keys)
    )
    return {row[0]: _Series(row[1], Summary(*row[2:])) for row in connection.execute(asked)}


def _put(connection: Connection, points: Mapping[int, Mapping[int, float]], then: str = "") -> None:
    """Insert the points of series, in the order in which they lie."""
    rows = [
        (series, step, number if math.isfinite(number) else None)
        for series in sorted(points)
        for step, number in sorted(points[series].items())
    ]
    if not rows:
        return
    mark = _MARK[connection.dialect.name]
    connection.exec_driver_sql(
        f"INSERT INTO points (series, step, value) VALUES ({mark}, {mark}, {mark}){then}", rows
    )
    odd = [
        {"series": series, "step": step, "kind": str(points[series][step])}
        for series, step, value in rows
        if value is None
    ]
    if odd:
        connection.execute(insert(NotFiniteRow), odd)


def _put_again(connection: Connection, points: Mapping[int, Mapping[int, float]]) -> None:
    """Insert points that may be there already; what is told now takes their place."""
    rows = [{"of": series, "at": step} for series, steps in points.items() for step in steps]
    if rows:
        place = NotFiniteRow.series == bindparam("of"), NotFiniteRow.step == bindparam("at")
        connection.execute(delete(NotFiniteRow).where(*place), rows)
        _put(connection, points, " ON CONFLICT (series, step) DO UPDATE SET value = excluded.value")


def _counted(connection: Connection, series: int) -> Summary:
    """Return a series' summary, from all of its points."""
    own = PointRow.series == series
    count, last_step, least, greatest = connection.execute(
        select(
            func.count(),
            func.max(PointRow.step),
            func.min(PointRow.value),
            func.max(PointRow.value),
        ).where(own)
    ).one()
    last = connection.scalar(select(PointRow.value).where(own, PointRow.step == last_step))
    return Summary(count, last_step, last, least, greatest)


def _update(connection: Connection, summaries: Mapping[int, Summary]) -> None:
    if summaries:
        rows = [{"series": series, **_facts(one)} for series, one in summaries.items()]
        connection.execute(update(SeriesRow).where(SeriesRow.id == bindparam("series")), rows)


def _facts(summary: Summary | None) -> dict[str, Any]:
    assert summary is not None, "points of a new series were never told before"
    return asdict(summary)


def _in_parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(keys), _KEYS_AT_ONCE):
        yield keys[first : first + _KEYS_AT_ONCE]


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # JSON has whole numbers of any length
        return math.inf if value > 0 else -math.inf


def _seconds(value: str) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp()
    except ValueError:
        return None


def _there(value: float | None) -> tuple[float, ...]:
    return () if value is None else (value,)
