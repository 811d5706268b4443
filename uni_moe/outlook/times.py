"""How long stages will take: from their last run here, else from what is to be computed.

A training's steps are taken from the last run's own, in proportion to what a step computes where as
many ranks shared it; what stood around them is taken as it was. An estimate says what it rests on.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from uni_moe.artifacts import Layout
from uni_moe.outlook.training import Training
from uni_moe.registry.cards import all_runs, json_lines
from uni_moe.runs import EVENTS, METRICS
from uni_moe.train.precision import Precision
from uni_moe.train.work import measured_flops, peak_flops

# Of what an accelerator could do, this share is taken for done; a processor's rate is measured.
SHARE_OF_PEAK = 0.4


@dataclass(frozen=True)
class Estimate:
    """Seconds, None where nothing is known, and what they rest on."""

    seconds: float | None
    rests_on: str

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class LastRun:
    """A stage's last run that ended well: its seconds, and those of each step it took."""

    id: str
    duration_s: float
    steps_s: tuple[float, ...]
    positions: float | None  # of a step on average, where the run told them
    ranks: int | None  # how many trained, where the run told it


@dataclass(frozen=True)
class Rate:
    """Floating point operations in a second, and where the number comes from."""

    flops_per_s: float
    said_by: str


def last_runs(layout: Layout) -> dict[str, LastRun]:
    """Return the last run of each stage that ended well.

    One that went on from its last step took none itself: it says nothing of its stage.
    """
    found: dict[str, LastRun] = {}
    for folder, record in reversed(all_runs(layout)):
        ended = record["status"] == "done" and record.get("duration_s") is not None
        if ended and record["stage"] not in found:
            last = _last(folder, record)
            if last.steps_s or last.ranks is None:
                found[record["stage"]] = last
    return found


def estimate(training: Training | None, last: LastRun | None, rate: Rate) -> Estimate:
    """Return what a stage will take."""
    if training is None:
        if last is None:
            return Estimate(None, "it has not run here")
        return Estimate(last.duration_s, f"its last run {last.id}")
    if last is not None and last.steps_s:
        return _by_steps(training, last)
    if training.flops:
        ranks = training.ranks.world
        return Estimate(training.flops / rate.flops_per_s / ranks, f"{rate.said_by}; steps alone")
    return Estimate(None, "none of its steps has run here")


def _by_steps(training: Training, last: LastRun) -> Estimate:
    """Estimate a training from the steps of its last run."""
    world, scale = training.ranks.world, 1.0
    said = f"{len(last.steps_s)} steps of its last run {last.id}"
    if last.ranks != world:
        known = "an unknown number of" if last.ranks is None else last.ranks
        said += f"; as long as they took on {known} rank(s), now there are {world}"
    elif last.positions and training.measured:
        scale = training.positions_per_step / last.positions
    around_s = max(0.0, last.duration_s - sum(last.steps_s))
    step_s = statistics.median(last.steps_s)
    return Estimate(around_s + training.steps * step_s * scale, said)


def rate_here(precision: Precision) -> Rate:
    """Return what this machine computes in a second, in one process."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    peak = None if name is None else peak_flops(name, precision)
    if peak is not None:
        return Rate(SHARE_OF_PEAK * peak, f"{SHARE_OF_PEAK:.0%} of the peak of {name}")
    flops = measured_flops(precision)
    return Rate(flops, f"{flops / 1e9:.0f} GFLOP/s of a product measured now")


def _last(folder: Path, record: Mapping[str, Any]) -> LastRun:
    rows = [row for row in json_lines(folder / METRICS) if "step_s" in row]
    positions = [row["positions_per_s"] * row["step_s"] for row in rows if "positions_per_s" in row]
    events = json_lines(folder / EVENTS)
    ranks = [row.get("ranks") for row in events if row["event"] == "training"]
    return LastRun(
        id=record["id"],
        duration_s=record["duration_s"],
        steps_s=tuple(row["step_s"] for row in rows),
        positions=statistics.fmean(positions) if positions else None,
        ranks=ranks[-1] if ranks else None,
    )
