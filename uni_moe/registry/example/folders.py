"""Run folders of an example, as runs write them: records, heartbeats, metrics, routing, events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from uni_moe.artifacts import Layout, json_text
from uni_moe.records import MODALITIES
from uni_moe.registry.example.curves import Course, course
from uni_moe.registry.example.exams import LAYERS, SLOTS
from uni_moe.registry.example.filling import run_row, times
from uni_moe.registry.example.history import Told, is_training
from uni_moe.runs import (
    EVENTS,
    HEARTBEAT_S,
    HEARTBEATS,
    METRICS,
    RECORD,
    ROUTING,
    environment,
)

_BEATS = 200  # of a run, the last ones
_TOKENS = {"text": 1019, "image": 432, "video": 288, "audio": 48, "speech": 80}  # of a step
_NOT_FINITE = 0.4  # where in its course a loss is not a number


def write_folder(layout: Layout, run: Told, steps: int, *, alarms: bool, not_finite: bool) -> None:
    """Write a run's folder; nobody waits for the disk here.

    Args:
        layout: the workspace.
        run: what ran.
        steps: what it would take if it trains.
        alarms: whether the router's and a gradient's alarms went off.
        not_finite: whether some of its losses are not numbers.
    """
    folder = layout.runs / run.id
    folder.mkdir(parents=True)
    (folder / RECORD).write_text(json_text(record(run)), encoding="utf-8")
    _lines(folder / HEARTBEATS, _beats(run))
    events = [{"event": "artifact", "name": name, "card": id_} for name, id_ in _made(run)]
    if is_training(run.stage):
        found = course(run.stage, steps, run.number, run.share)
        if not_finite:
            found.of["loss"][_odd(found)] = np.nan
        _lines(folder / METRICS, metric_lines(run, found))
        if run.stage == "tune":
            _lines(folder / ROUTING, routing(run.number, found))
        events = [*_told(found, steps, alarms=alarms), *events]
    _lines(folder / EVENTS, _timed(run, events))


def write_record(layout: Layout, run: Told) -> None:
    """Write what is kept for ever of a run that is long over: its record and its last heartbeat."""
    folder = layout.runs / run.id
    folder.mkdir(parents=True)
    (folder / RECORD).write_text(json_text(record(run)), encoding="utf-8")
    _lines(folder / HEARTBEATS, iter([{"time": _moment(run, run.duration_s)}]))


def record(run: Told) -> dict[str, Any]:
    """Return a run's record. One that died still says that it runs: its heart tells."""
    told = run_row(run)
    if run.status == "died":
        told = {name: value for name, value in told.items() if name not in ("ended", "duration_s")}
        told["status"] = "running"
    told = {name: value for name, value in told.items() if value is not None}
    about = {"flow_run": run.flow_run, "environment": _environment(), "params": {"seed": 7}}
    return {**told, **about, "artifacts": run.artifacts}


def metric_lines(run: Told, found: Course) -> Iterator[Mapping[str, Any]]:
    """Give a run's steps as lines of its metrics."""
    at = times(run, found.steps).tolist()
    columns = {key: numbers.tolist() for key, numbers in found.of.items()}
    for place, seconds in enumerate(at):
        time = datetime.fromtimestamp(seconds, UTC).isoformat()
        values = {key: column[place] for key, column in columns.items()}
        yield {"time": time, "step": place + 1, **values}


@lru_cache(maxsize=1)
def _environment() -> dict[str, Any]:
    return environment()


def _odd(found: Course) -> slice:
    first = int(found.steps * _NOT_FINITE)
    return slice(first, first + max(1, found.steps // 100))


def _made(run: Told) -> list[tuple[str, str]]:
    return sorted(run.artifacts.items())


def _told(found: Course, steps: int, *, alarms: bool) -> list[dict[str, Any]]:
    """Return the events of a training, each with the share of its time at which it falls."""
    every = max(1, steps // 5)
    events: list[dict[str, Any]] = [
        {"event": "training", "step": 0, "steps": steps, "parameters": 12, "ranks": 1, "at": 0.05}
    ]
    for step in range(every, found.steps + 1, every):
        loss = float(found.of["loss"][step - 1])
        told = {"event": "state", "step": step, "loss": loss if loss == loss else None}  # noqa: PLR0124 - not a number
        events.append({**told, "files": {}, "at": step / max(1, found.steps)})
    if alarms:
        events += _alarms(found)
    return sorted(events, key=lambda event: float(event["at"]))


def _alarms(found: Course) -> list[dict[str, Any]]:
    leap, late = int(found.steps * 0.3), int(found.steps * 0.7)
    norm = float(found.of["gradient_norm"][leap])
    draw = {"slot": 3, "rank": 0, "key": "playground/train/image-00017", "sample": "0" * 64}
    draw |= {"modality": "image", "source": "playground", "tokens": 9, "loss": 7.25}
    spike = {"kind": "gradient_spike", "step": leap + 1, "value": norm, "limit": 8.0, "at": 0.3}
    spike["text"] = f"the gradient of step {leap + 1} is {norm:.4g}, 9.1 deviations above the usual"
    dead = {"kind": "dead_expert", "step": late + 1, "value": 0.0005, "limit": 0.002, "at": 0.7}
    dead |= {"layer": 2, "expert": 3, "text": "layer 2: expert 3 gets 0.05% of visits for 20 steps"}
    return [
        {"event": "alarm", **spike, "draws": [draw]},
        {"event": "alarm", **dead, "draws": []},
    ]


def routing(seed: int, found: Course) -> Iterator[Mapping[str, Any]]:
    """Give what the routers did at each step; a modality prefers its own expert."""
    dice = np.random.default_rng(seed)
    for step in range(1, found.steps + 1):
        layers = {
            layer: {name: _table(name, layer, step, found, dice) for name in MODALITIES}
            for layer in LAYERS
        }
        yield {"step": step, "layers": layers}


def _table(
    name: str, layer: str, step: int, found: Course, dice: np.random.Generator
) -> dict[str, Any]:
    pull = np.ones(len(SLOTS))
    pull[SLOTS.index(name) if name in SLOTS else 0] += 2.0 * step / found.steps
    if found.dead is not None and layer == LAYERS[-1] and step > found.steps / 2:
        pull[found.dead] = 0.0
    share = pull / pull.sum()
    visits = dice.multinomial(2 * _TOKENS[name], share)
    entropy = -float(np.sum(share[share > 0] * np.log(share[share > 0])))
    return {
        "tokens": _TOKENS[name],
        "visits": visits.tolist(),
        "share": [round(one, 4) for one in share.tolist()],
        "entropy": round(entropy, 4),
    }


def _beats(run: Told) -> Iterator[Mapping[str, Any]]:
    count = min(_BEATS, int(run.duration_s / HEARTBEAT_S) + 1)
    for place in range(count):
        yield {"time": _moment(run, run.duration_s - (count - 1 - place) * HEARTBEAT_S)}


def _timed(run: Told, events: list[dict[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for event in events:
        told = dict(event)
        yield {"time": _moment(run, told.pop("at", 0.99) * run.duration_s), **told}


def _moment(run: Told, after_s: float) -> str:
    return (datetime.fromisoformat(run.started) + timedelta(seconds=after_s)).isoformat()


def _lines(file: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    with file.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
