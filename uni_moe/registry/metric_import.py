"""Imports metrics from where the last import stopped: what is there already is not read again.

How far a file was read is written in the transaction that holds its points, so a process that dies
loses nothing and doubles nothing. A half-written last line waits for its end.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout
from uni_moe.registry import points
from uni_moe.registry.cards import lines_from
from uni_moe.registry.importing import ENDED
from uni_moe.registry.metric_tables import MetricFileRow
from uni_moe.registry.tables import RunRow
from uni_moe.runs import METRICS

SLICE_BYTES = 16 << 20  # of a transaction: other writers get their turn, and memory stays small


@dataclass(frozen=True)
class Unread:
    """A run whose file may hold more than was imported; one that is over grows no more."""

    run: str
    file: Path
    is_over: bool


def unread(session: Session, layout: Layout) -> list[Unread]:
    """Return the runs whose metrics are to be looked at; what was read whole is not opened."""
    asked = (
        select(RunRow.id, RunRow.status, MetricFileRow.position)
        .outerjoin(MetricFileRow, MetricFileRow.run == RunRow.id)
        .where(MetricFileRow.is_whole.isnot(True))  # noqa: FBT003 - SQL's IS NOT TRUE
        .order_by(RunRow.started, RunRow.id)
    )
    found = []
    for run, status, position in session.execute(asked):
        one = Unread(run, layout.runs / run / METRICS, status in ENDED)
        if one.is_over or _size(one.file) != (position or 0):
            found.append(one)
    return found


def read_on(session: Session, waiting: deque[Unread], most_bytes: int = SLICE_BYTES) -> None:
    """Import the next bytes of runs that wait, and take those out that were read to their end."""
    while waiting and most_bytes > 0:
        count, is_at_end = _read_one(session, waiting[0], most_bytes)
        most_bytes -= count
        if is_at_end:
            waiting.popleft()


def _read_one(session: Session, one: Unread, most_bytes: int) -> tuple[int, bool]:
    """Import the next lines of a run; return their bytes, and whether there are no more."""
    row = session.get(MetricFileRow, one.run)
    if row is None:
        row = MetricFileRow(run=one.run, position=0, is_whole=False)
        session.add(row)
    size = _size(one.file)
    if size < row.position:  # another file took its place
        points.remove(session.connection(), one.run)
        row.position = 0
    begin = row.position
    if begin < size:
        lines, row.position = lines_from(one.file, begin, most_bytes)
        points.add(session.connection(), one.run, points.told(lines))
    is_at_end = row.position in (size, begin)  # the latter where a line waits for its end
    row.is_whole = one.is_over and is_at_end
    return row.position - begin, is_at_end


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
