"""A run as a line of a table, read from its folder, which tells the truth of this moment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from uni_moe.artifacts import Layout
from uni_moe.registry.cards import absent_or_read, last_lines, run_record
from uni_moe.runs import METRICS

LOSS = "loss"
LONGEST = 400  # letters of a reason or an error in a line
_TAIL_BYTES = 16_384  # of metrics: the last step is among them


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


def folder_names(layout: Layout) -> list[str]:
    """Return the names of run folders, oldest first: a name begins with the moment.

    Raises:
        LineageError: the system does not let them be listed.
    """
    with absent_or_read(layout.runs), os.scandir(layout.runs) as entries:
        return sorted(one.name for one in entries if not one.name.startswith("."))
    return []


def line_of(layout: Layout, run: str) -> RunLine | None:
    """Return a run's line from its folder, None where it has no record.

    Raises:
        LineageError: the record cannot be read.
    """
    record = run_record(layout.runs / run)
    if record is None:
        return None
    told = {name: record.get(name) for name in RunLine.__dataclass_fields__}
    return cut(told | {"id": run, "loss": last_loss(layout, run)})


def last_loss(layout: Layout, run: str) -> float | None:
    """Return the last loss that a run's folder tells, None where it tells none.

    Raises:
        LineageError: its numbers cannot be read.
    """
    lines = last_lines(layout.runs / run / METRICS, _TAIL_BYTES)
    told = [line[LOSS] for line in lines if isinstance(line.get(LOSS), int | float)]
    return float(told[-1]) if told else None


def cut(told: dict[str, Any]) -> RunLine:
    """Return a line of what is told, whose long texts are cut."""
    for name in ("reason", "error"):
        if told[name] is not None:
            told[name] = str(told[name])[:LONGEST]
    if told["error"] is not None:
        told["error"] = (told["error"].splitlines() or [""])[0]
    return RunLine(**told)
