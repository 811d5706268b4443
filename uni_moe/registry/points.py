"""Metric points: what the lines of a run say, and how they get into their series.

The last that is told of a step counts. A point costs an insert and a change of its series'
summary, which never reads the points that were there before: unless the least or the greatest of
them is told again, and is another one now.
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
_PUT = "INSERT INTO points (series, step, value) VALUES ({mark}, {mark}, {mark})"
_PUT_AGAIN = f"{_PUT} ON CONFLICT (series, step) DO UPDATE SET value = excluded.value"


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


def summed(
    before: Summary, told_: Mapping[int, float], replaced: Mapping[int, float | None]
) -> Summary | None:
    """Return a series' summary after these points; None where it must be counted.

    Args:
        before: the summary until now.
        told_: step -> number; at least one.
        replaced: what stood at those of the steps that were told before.
    """
    finite = [number for number in told_.values() if math.isfinite(number)]
    gone = set(replaced.values())
    least = min((*finite, *_there(before.least)), default=None)
    greatest = max((*finite, *_there(before.greatest)), default=None)
    for old, new in ((before.least, least), (before.greatest, greatest)):
        if old is not None and old in gone and old == new and old not in finite:
            return None
    last_step = max(told_)
    last = told_[last_step] if math.isfinite(told_[last_step]) else None
    return Summary(
        points=before.points + len(told_) - len(replaced),
        last_step=max(last_step, before.last_step),
        last=last if last_step >= before.last_step else before.last,
        least=least,
        greatest=greatest,
    )


def add(connection: Connection, run: str, numbers: Told) -> None:
    """Put numbers of a run into its series; the caller's transaction makes it whole."""
    for keys in _in_parts(sorted(numbers)):
        known = _known(connection, run, keys)
        new = [key for key in keys if key not in known]
        if new:
            rows = [{"run": run, "key": key, **asdict(_NOTHING)} for key in new]
            connection.execute(_BEGUN, rows)
            known |= _known(connection, run, new)
        _grow(
            connection,
            {one.id: one.summary for one in known.values()},
            {known[key].id: numbers[key] for key in keys},
        )


def _grow(
    connection: Connection,
    before: Mapping[int, Summary],
    numbers: Mapping[int, Mapping[int, float]],
) -> None:
    """Put numbers into series that are there, and bring their summaries up to them."""
    replaced = {
        series: _replaced(connection, series, before[series], told_)
        for series, told_ in numbers.items()
    }
    _put(connection, {series: told_ for series, told_ in numbers.items() if not replaced[series]})
    _put_again(connection, {series: told_ for series, told_ in numbers.items() if replaced[series]})
    rows = []
    for series, told_ in numbers.items():
        summary = summed(before[series], told_, replaced[series]) or _counted(connection, series)
        rows.append({"series": series, **asdict(summary)})
    connection.execute(_GROWN, rows)


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


_NOTHING = Summary(0, -_MOST_STEP, None, None, None)

# Made once: a step of a training is put in within a millisecond or two, the disk aside.
_KNOWN = select(
    SeriesRow.key,
    SeriesRow.id,
    *(getattr(SeriesRow, name) for name in Summary.__dataclass_fields__),
).where(SeriesRow.run == bindparam("of"), SeriesRow.key.in_(bindparam("keys", expanding=True)))
_GROWN = update(SeriesRow).where(SeriesRow.id == bindparam("series"))
_BEGUN = insert(SeriesRow)
_BETWEEN = select(PointRow.step, PointRow.value).where(
    PointRow.series == bindparam("of"),
    PointRow.step.between(bindparam("first"), bindparam("last")),
)
_FINITE_NOW = delete(NotFiniteRow).where(
    NotFiniteRow.series == bindparam("of"), NotFiniteRow.step == bindparam("at")
)


def _known(connection: Connection, run: str, keys: Sequence[str]) -> dict[str, _Series]:
    rows = connection.execute(_KNOWN, {"of": run, "keys": keys})
    return {row[0]: _Series(row[1], Summary(*row[2:])) for row in rows}


def _replaced(
    connection: Connection, series: int, before: Summary, told_: Mapping[int, float]
) -> dict[int, float | None]:
    """Return what stands at the steps that are told; nearly always they are new."""
    first, last = min(told_), max(told_)
    if first > before.last_step:
        return {}
    rows = connection.execute(_BETWEEN, {"of": series, "first": first, "last": last})
    return {step: value for step, value in rows if step in told_}


def _put(
    connection: Connection, points: Mapping[int, Mapping[int, float]], how: str = _PUT
) -> None:
    """Insert the points of series, in the order in which they lie."""
    rows = [
        (series, step, number if math.isfinite(number) else None)
        for series in sorted(points)
        for step, number in sorted(points[series].items())
    ]
    if not rows:
        return
    mark = _MARK[connection.dialect.name]
    connection.exec_driver_sql(how.format(mark=mark), rows)
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
        connection.execute(_FINITE_NOW, rows)
        _put(connection, points, _PUT_AGAIN)


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
