"""What a step's report says in numbers, for the run's metrics, and the alarms that follow."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from uni_moe import config
from uni_moe.model.config import KINDS
from uni_moe.model.routing_sums import RoutingSums, stacked, unstacked
from uni_moe.runs import Run
from uni_moe.train.alarms import Alarm, Leaps, RouterWatch, facts_of, suspects
from uni_moe.train.batches import StepReport
from uni_moe.train.work import Work

_NAMED = 8  # draws kept with an alarm


@dataclass(frozen=True)
class Told:
    """What a step is worth telling: one number each, the routing as a table, and alarms."""

    metrics: Mapping[str, float]
    routing: Mapping[str, Any]
    alarms: tuple[Alarm, ...]


class Telemetry:
    """Watches one training. One process keeps it; steps come in their order."""

    def __init__(
        self, rules: config.Telemetry, *, work: Work | None = None, peak_flops: float | None = None
    ) -> None:
        """Watch by these rules.

        Args:
            rules: what counts as an alarm.
            work: what a step computes, for an estimate of utilization.
            peak_flops: what all devices together could do in a second.
        """
        self.leaps, self._router = Leaps(rules.guard), RouterWatch(rules.router)
        self._work, self._peak_flops = work, peak_flops

    def add(self, report: StepReport) -> Told:
        """Return what a step says. A step that went wrong names its draws, the worst first."""
        routing = _on_cpu(report.routing)
        alarms = self.leaps.see(report.step, report.loss, report.gradient_norm)
        if alarms:
            draws = suspects(report)[:_NAMED]
            alarms = [replace(alarm, draws=draws) for alarm in alarms]
        alarms += self._router.see(report.step, routing)
        metrics = {
            **_of_step(report),
            **_losses(report),
            **_speed(report, self._work, self._peak_flops),
            **_filling(report),
            **_of_layers(routing),
            **report.memory,
        }
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        return Told(finite, _tables(routing), tuple(alarms))

    def to_json(self) -> dict[str, Any]:
        """Return what a training state keeps."""
        return {"leaps": self.leaps.to_json(), "router": self._router.to_json()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `to_json` returned."""
        self.leaps.load(state["leaps"])
        self._router.load(state["router"])


def write(run: Run, step: int, told: Told) -> None:
    """Write a step into the run's folder."""
    run.metric(step, told.metrics)
    if told.routing:
        run.routing(step, told.routing)
    for alarm in told.alarms:
        run.event("alarm", **alarm.to_json())


def _of_step(report: StepReport) -> dict[str, float]:
    return {
        "loss": report.loss,
        "learning_rate": report.learning_rate,
        "gradient_norm": report.gradient_norm,
        "wait_s": report.waited_s,
        "encode_s": report.encoded_s,
        "step_s": report.took_s,
        **{f"loss/{name}": value for name, value in report.parts.items()},
        **{f"auxiliary/{name}": value for name, value in report.auxiliary.items()},
    }


def _losses(report: StepReport) -> dict[str, float]:
    """Return the loss by modality and by source, in nats per token."""
    sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for (_, seen), (total, tokens) in zip(report.seen, report.by_draw, strict=True):
        for name in (f"loss/{seen.modality}", f"loss_of_source/{seen.source}"):
            sums[name][0] += total
            sums[name][1] += tokens
    return {name: total / tokens for name, (total, tokens) in sorted(sums.items()) if tokens}


def _speed(report: StepReport, work: Work | None, peak_flops: float | None) -> dict[str, float]:
    """Return rates; without a known peak or count of positions there is no utilization."""
    tokens, took_s = sum(count for _, count in report.by_draw), max(report.took_s, 1e-9)
    found = {"wait_share": report.waited_s / took_s, "encode_share": report.encoded_s / took_s}
    if report.draws:
        found["samples_per_s"] = report.draws / took_s
    if tokens:
        found["tokens_per_s"] = tokens / took_s
    if report.positions:
        found["positions_per_s"] = report.positions / took_s
        if work is not None and peak_flops is not None:
            found["mfu"] = work.of(report.positions, tokens) / took_s / peak_flops
    return found


def _filling(report: StepReport) -> dict[str, float]:
    """Return which share of the computed positions held nothing, by all layers and by attention."""
    told = {"filling_share": report.computed, "filling_share_of_attention": report.attended}
    return {name: 1 - report.positions / all_ for name, all_ in told.items() if all_}


def _of_layers(routing: Mapping[int, RoutingSums]) -> dict[str, float]:
    found: dict[str, float] = {}
    for layer, sums in sorted(routing.items()):
        facts = facts_of(sums)
        if facts is not None:
            found[f"router/{layer}/entropy_share"] = facts.entropy_share
            found[f"router/{layer}/busiest_share"] = facts.busiest_share
            found[f"router/{layer}/unvisited"] = facts.load.count(0.0)
    return found


def _tables(routing: Mapping[int, RoutingSums]) -> dict[str, Any]:
    """Return layer -> modality -> tokens, visits and mean shares by expert, mean entropy."""
    tables: dict[str, Any] = {}
    for layer, sums in sorted(routing.items()):
        rows = zip(KINDS, sums.table_MX.tolist(), strict=True)
        tables[str(layer)] = {kind: _table(row, sums.experts) for kind, row in rows if row[-1]}
    return tables


def _table(row: list[float], experts: int) -> dict[str, Any]:
    tokens = row[-1]
    return {
        "tokens": int(tokens),
        "visits": [int(visits) for visits in row[:experts]],
        "share": [round(share / tokens, 4) for share in row[experts : 2 * experts]],
        "entropy": round(row[-2] / tokens, 4),
    }


def _on_cpu(routing: Mapping[int, RoutingSums]) -> dict[int, RoutingSums]:
    """Bring all layers' sums over at once."""
    return unstacked(stacked(routing).cpu(), list(routing)) if routing else {}
