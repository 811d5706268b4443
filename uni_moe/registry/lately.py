"""What runs now and what ran lately: the index where it knows, run folders where it is behind.

Only folders are opened of runs of which the index does not know that they ended, so ten thousand
old ones cost nothing. Times are ISO text in UTC, which sorts as time does.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from uni_moe.artifacts import Layout
from uni_moe.errors import LineageError
from uni_moe.registry.cards import lines_from, run_record
from uni_moe.registry.database import reading
from uni_moe.registry.importing import ENDED
from uni_moe.registry.metric_import import METRICS
from uni_moe.registry.tables import RunRow

EVENTS = "events.jsonl"
MOST_OPEN = 200  # folders that are opened for one answer, the newest by name
_TAIL_BYTES = 1 << 16  # of a live file, enough for some last lines
_LONGEST = 1000  # letters of what a run says


@dataclass(frozen=True)
class Lately:
    """A run as it is now. `status` is running, done, failed or died."""

    id: str
    stage: str
    status: str
    started: str
    ended: str | None
    reason: str | None
    error: str | None


@dataclass(frozen=True)
class Progress:
    """How far a training is; all None of a stage that takes no steps, or has not begun to."""

    step: int | None
    steps: int | None
    loss: float | None


@dataclass(frozen=True)
class Alarm:
    """Something that a run told a person to look at."""

    run: str
    stage: str
    at: str | None
    step: int | None
    kind: str
    text: str


def ended_runs(layout: Layout) -> frozenset[str]:
    """Return the ids of the runs that the index knows to have ended."""
    with reading(layout) as session:
        return frozenset(session.scalars(select(RunRow.id).where(RunRow.status.in_(ENDED))))


def open_runs(layout: Layout, ended: Collection[str]) -> list[Lately]:
    """Return the runs beside those that are known to have ended, newest first, from their folders.

    A folder that cannot be read is left out: the question about this run alone says why.
    """
    names = sorted((name for name in _folders(layout.runs) if name not in ended), reverse=True)
    found = (_readable(layout.runs / name) for name in names[:MOST_OPEN])
    return sorted((one for one in found if one), key=lambda one: one.started, reverse=True)


def outcomes(layout: Layout, since: str) -> dict[str, int]:
    """Return how many of the runs that began since a moment ended how, as the index knows it."""
    asked = (
        select(RunRow.status, func.count())
        .where(RunRow.started >= since, RunRow.status.in_(ENDED))
        .group_by(RunRow.status)
    )
    with reading(layout) as session:
        return {row[0]: row[1] for row in session.execute(asked)}


def failures(layout: Layout, since: str, most: int) -> list[Lately]:
    """Return the last runs that failed since a moment, newest first, as the index knows them."""
    return _last(layout, since, most, failed_alone=True)


def last_runs(layout: Layout, since: str, most: int) -> list[Lately]:
    """Return the last runs that began since a moment and ended, newest first, by the index."""
    return _last(layout, since, most, failed_alone=False)


def progress(layout: Layout, run: str) -> Progress:
    """Return how far a run is, from the ends of its files."""
    folder = layout.runs / run
    rows = [row for row in _tail(folder / METRICS) if isinstance(row.get("step"), int)]
    begun = [row for row in _begin(folder / EVENTS) if row.get("event") == "training"]
    last: Mapping[str, Any] = rows[-1] if rows else {}
    loss = last.get("loss")
    return Progress(
        step=last.get("step"),
        steps=_whole(begun[-1].get("steps")) if begun else None,
        loss=float(loss) if isinstance(loss, int | float) else None,
    )


def alarms(layout: Layout, runs: Sequence[Lately], most: int) -> list[Alarm]:
    """Return the last alarms of some runs, in their order, each run's newest first."""
    found: list[Alarm] = []
    for run in runs:
        rows = [row for row in _tail(layout.runs / run.id / EVENTS) if row.get("event") == "alarm"]
        found += [_alarm(run, row) for row in reversed(rows)]
        if len(found) >= most:
            break
    return found[:most]


def _alarm(run: Lately, row: Mapping[str, Any]) -> Alarm:
    at = row.get("time")
    return Alarm(
        run=run.id,
        stage=run.stage,
        at=at if isinstance(at, str) else None,
        step=_whole(row.get("step")),
        kind=str(row.get("kind", "alarm"))[:_LONGEST],
        text=str(row.get("text", ""))[:_LONGEST],
    )


def _last(layout: Layout, since: str, most: int, *, failed_alone: bool) -> list[Lately]:
    statuses = ("failed",) if failed_alone else ENDED
    asked = (
        select(*(getattr(RunRow, name) for name in Lately.__dataclass_fields__))
        .where(RunRow.started >= since, RunRow.status.in_(statuses))
        .order_by(RunRow.started.desc())
        .limit(most)
    )
    with reading(layout) as session:
        return [Lately(*row) for row in session.execute(asked)]


def _readable(folder: Path) -> Lately | None:
    try:
        record = run_record(folder)
        if record is None:
            return None
        facts: Any = {name: record.get(name) for name in Lately.__dataclass_fields__}
        return Lately(**facts)
    except (LineageError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _folders(runs: Path) -> Iterator[str]:
    """Give the names of run folders, without a look into any."""
    try:
        with os.scandir(runs) as entries:
            yield from (entry.name for entry in entries if not entry.name.startswith("."))
    except FileNotFoundError:
        return


def _tail(file: Path) -> list[dict[str, Any]]:
    try:
        start = max(0, file.stat().st_size - _TAIL_BYTES)
        return lines_from(file, start, _TAIL_BYTES)[0]
    except OSError:
        return []


def _begin(file: Path) -> list[dict[str, Any]]:
    try:
        return lines_from(file, 0, _TAIL_BYTES)[0]
    except OSError:
        return []


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
