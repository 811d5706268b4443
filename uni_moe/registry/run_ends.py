"""What the ends of runs' live files tell: how far a training is, and its alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uni_moe.artifacts import Layout
from uni_moe.registry.cards import absent_or_read, last_lines, lines_from
from uni_moe.registry.run_lines import LONGEST, LOSS, RunLine
from uni_moe.runs import EVENTS, METRICS

_BYTES = 1 << 16  # of a live file, enough for some last lines


@dataclass(frozen=True)
class Progress:
    """How far a training is; all None of a stage that takes no steps, or has not begun to."""

    step: int | None
    steps: int | None
    loss: float | None


@dataclass(frozen=True)
class Alarm:
    """Something that a run told a person to look at; a long text is cut."""

    run: str
    stage: str
    at: str | None
    step: int | None
    kind: str
    text: str


def progress(layout: Layout, run: str) -> Progress:
    """Return how far a run is.

    Raises:
        LineageError: its live files are there and cannot be read.
    """
    folder = layout.runs / run
    rows = [
        row for row in last_lines(folder / METRICS, _BYTES) if _whole(row.get("step")) is not None
    ]
    last: Mapping[str, Any] = rows[-1] if rows else {}
    begun: list[dict[str, Any]] = []
    with absent_or_read(folder / EVENTS):
        lines, _ = lines_from(folder / EVENTS, 0, _BYTES)
        begun = [row for row in lines if row.get("event") == "training"]
    loss = last.get(LOSS)
    return Progress(
        step=last.get("step"),
        steps=_whole(begun[-1].get("steps")) if begun else None,
        loss=float(loss) if isinstance(loss, int | float) else None,
    )


def alarms(layout: Layout, runs: Sequence[RunLine], most: int) -> list[Alarm]:
    """Return the last alarms of some runs, in their order, each run's newest first.

    Raises:
        LineageError: the events of one are there and cannot be read.
    """
    found: list[Alarm] = []
    for run in runs:
        rows = last_lines(layout.runs / run.id / EVENTS, _BYTES)
        found += [_alarm(run, row) for row in reversed(rows) if row.get("event") == "alarm"]
        if len(found) >= most:
            break
    return found[:most]


def _alarm(run: RunLine, row: Mapping[str, Any]) -> Alarm:
    at = row.get("time")
    return Alarm(
        run=run.id,
        stage=run.stage,
        at=at if isinstance(at, str) else None,
        step=_whole(row.get("step")),
        kind=str(row.get("kind", "alarm"))[:LONGEST],
        text=str(row.get("text", ""))[:LONGEST],
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
