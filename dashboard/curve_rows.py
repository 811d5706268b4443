"""From points to the rows of a chart: by step or by time, smoothed, on a line or logarithmic. Pure.

What cannot be drawn is counted: numbers that are not finite, and of a logarithmic chart those at
or below zero.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uni_moe.registry.read import Point

STEP, TIME = "step", "time"
_UNITS = ((3 * 3600.0, 3600.0, "hours"), (180.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))


@dataclass(frozen=True)
class View:
    """How curves are looked at."""

    by: str = STEP
    smoothing: float = 0.0  # 0 leaves the points as they are, 0.99 shows little but the trend
    is_log: bool = False


@dataclass
class Gathered:
    """The rows of a chart, marks of what is not finite and of events, and what is to be told."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    odd: list[dict[str, Any]] = field(default_factory=list)
    marks: list[dict[str, Any]] = field(default_factory=list)
    x_title: str = "step"
    below_zero: int = 0


@dataclass(frozen=True)
class Line:
    """A curve: its name, its points, and the times of steps, in seconds, where they are known."""

    name: str
    points: Sequence[Point]
    times: Sequence[Point] = ()
    factor: float = 1.0  # into the unit that is shown


def gather(
    lines: Sequence[Line], view: View, events: Sequence[tuple[int, str, str]] = ()
) -> Gathered:
    """Return the rows of curves.

    Args:
        lines: the curves.
        view: how they are looked at.
        events: step, what happened, and what is said of it; on the steps of the first line.
    """
    found = Gathered()
    for line in lines:
        _add(found, line, view)
    times = lines[0].times if lines else ()
    for step, what, text in events:
        x = _x(step, times, view)
        if x is not None:
            found.marks.append({"x": x, "step": step, "event": what, "text": text})
    if view.by == TIME:
        found.x_title = f"{_in_unit(found)} since the first step"
    return found


def _add(found: Gathered, line: Line, view: View) -> None:
    drawn: list[dict[str, Any]] = []
    for point in line.points:
        x = _x(point.step, line.times, view)
        if x is None:
            continue
        value = point.value * line.factor
        if not math.isfinite(value):
            found.odd.append({"x": x, "step": point.step, "name": line.name, "kind": str(value)})
        elif view.is_log and value <= 0:
            found.below_zero += 1
        else:
            drawn.append({"x": x, "step": point.step, "name": line.name, "value": value})
    smooth = smoothed([row["value"] for row in drawn], view.smoothing)
    found.rows += [row | {"smooth": value} for row, value in zip(drawn, smooth, strict=True)]


def smoothed(values: Sequence[float], strength: float) -> list[float]:
    """Return exponential means of values and those before; the first ones are not drawn to zero."""
    if not 0 < strength < 1:
        return list(values)
    total = weight = 0.0
    found = []
    for value in values:
        total = strength * total + (1 - strength) * value
        weight = strength * weight + (1 - strength)
        found.append(total / weight)
    return found


def time_of(step: int, times: Sequence[Point]) -> float | None:
    """Return when a step was, on a line between the steps whose times are kept."""
    if not times:
        return None
    place = bisect_left(times, step, key=lambda point: point.step)
    if place == len(times):
        return times[-1].value
    after = times[place]
    if after.step == step or place == 0:
        return after.value
    before = times[place - 1]
    share = (step - before.step) / (after.step - before.step)
    return before.value + share * (after.value - before.value)


def _x(step: int, times: Sequence[Point], view: View) -> float | None:
    if view.by == STEP:
        return step
    at = time_of(step, times)
    return None if at is None else at - times[0].value


def _in_unit(found: Gathered) -> str:
    """Bring seconds into a unit that suits them, and return its name."""
    rows = [*found.rows, *found.odd, *found.marks]
    longest = max((row["x"] for row in rows), default=0.0)
    _, unit_s, word = next(one for one in _UNITS if longest >= one[0] or one[0] == 0.0)
    for row in rows:
        row["x"] = row["x"] / unit_s
    return word


def differing(told: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the parameters that are not the same in all runs, a column for each run.

    Args:
        told: run -> its parameters, which may be nested.
    """
    flat = {run: flattened(params) for run, params in told.items()}
    names = sorted({name for params in flat.values() for name in params})
    return [
        {"parameter": name, **{run: params.get(name, "-") for run, params in flat.items()}}
        for name in names
        if len({params.get(name) for params in flat.values()}) > 1
    ]


def flattened(params: object, prefix: str = "") -> dict[str, str]:
    """Return nested values under names with dots, as text."""
    if isinstance(params, Mapping) and params:
        found: dict[str, str] = {}
        for name, value in params.items():
            found |= flattened(value, f"{prefix}.{name}" if prefix else str(name))
        return found
    return {prefix: str(params)} if prefix else {}
