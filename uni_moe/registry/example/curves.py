"""What a training tells, step by step: the keys of real telemetry, with numbers drawn for them.

Losses fall with noise and differ by modality, the learning rate warms up and decays, gradients
spike now and then, the reader of data is late now and then. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from uni_moe.records import MODALITIES
from uni_moe.registry.example.exams import LAYERS, SLOTS
from uni_moe.registry.example.road import SEES

Numbers = np.ndarray[Any, np.dtype[np.float64]]

WARMUP = 0.05  # share of steps
_STEPS = {"foundation": 1.6, "align": 0.6, "experts": 0.7, "tune": 2.4}  # beside each other
_PEAK = {"foundation": 2.0e-3, "align": 1.0e-3, "experts": 1.0e-3, "tune": 1.0e-3}
_END = {"text": 0.35, "image": 0.22, "video": 0.42, "audio": 0.6, "speech": 0.48}
_SOURCES = {"text": "playground", "image": "captions", "video": "films", "audio": "sounds"}
_SPIKE, _LATE = 0.002, 0.01  # shares of steps
_DEAD = 0.15  # share of tunings in which an expert dies


@dataclass(frozen=True)
class Course:
    """The numbers of a run: key -> one a step, from step 1 on; nobody visits expert `dead`."""

    of: Mapping[str, Numbers]
    dead: int | None

    @property
    def steps(self) -> int:
        """How many steps it took."""
        return len(self.of["loss"])


def weight(stage: str) -> float:
    """Return how long a stage trains, beside others."""
    return _STEPS[stage.partition("@")[0]]


def keys(stage: str) -> list[str]:
    """Return what a run of a stage tells at each step, in order, the time aside."""
    return sorted(course(stage, 2, 0).of)


def course(stage: str, steps: int, seed: int, share: float = 1.0) -> Course:
    """Return what a run told, which ended after a share of its steps.

    Args:
        stage: one that trains.
        steps: those that it would take.
        seed: what its dice begin at.
        share: how much of them it took; 1 where it was done.
    """
    dice = np.random.default_rng(seed)
    kind = stage.partition("@")[0]
    place = np.linspace(0.0, 1.0, steps)[: max(2, round(steps * share))]
    found = _losses(stage, place, dice)
    found["learning_rate"] = _learning_rate(place, _PEAK[kind])
    found |= _gradients(place, dice) | _speeds(kind, place, dice) | _memory(place, dice)
    dead = None
    if kind == "tune":
        dead = int(dice.integers(len(SLOTS))) if dice.random() < _DEAD else None
        found |= _routers(place, dice, dead)
    return Course(found, dead)


def modalities(stage: str) -> tuple[str, ...]:
    """Return what a stage learns from."""
    kind, _, part = stage.partition("@")
    if kind == "tune":
        return MODALITIES
    if kind == "align" or (kind == "foundation" and part != "language"):
        return tuple(name for name, seen in SEES.items() if seen == part)
    return ("text",) if part == "language" else (part,)


def _losses(stage: str, place: Numbers, dice: np.random.Generator) -> dict[str, Numbers]:
    found: dict[str, Numbers] = {}
    names = modalities(stage)
    for name in names:
        end, begin = _END[name] * dice.uniform(0.8, 1.2), dice.uniform(2.0, 4.5)
        fall = np.exp(-place * dice.uniform(5.0, 12.0))
        noise = dice.normal(1.0, 0.06, len(place))
        found[f"loss/{name}"] = (end + (begin - end) * fall) * noise
    whole = np.mean(list(found.values()), axis=0)
    if not stage.startswith("foundation"):
        for name in names:
            source = f"loss_of_source/{_SOURCES.get(name, 'playground')}"
            found[source] = found[f"loss/{name}"] * dice.normal(1.0, 0.01, len(place))
    return {"loss": whole, **found}


def _learning_rate(place: Numbers, peak: float) -> Numbers:
    """Return a linear warm-up and a cosine down to nothing."""
    fall = 0.5 * (1.0 + np.cos(np.pi * (place - WARMUP) / (1.0 - WARMUP)))
    return np.where(place < WARMUP, peak * place / WARMUP, peak * fall)


def _gradients(place: Numbers, dice: np.random.Generator) -> dict[str, Numbers]:
    norm = (0.3 + 2.0 * np.exp(-place * 8.0)) * dice.lognormal(0.0, 0.25, len(place))
    leaps = np.where(dice.random(len(place)) < _SPIKE, dice.uniform(6.0, 30.0, len(place)), 1.0)
    return {"gradient_norm": norm * leaps}


def _speeds(kind: str, place: Numbers, dice: np.random.Generator) -> dict[str, Numbers]:
    count = len(place)
    took_s = dice.uniform(0.08, 0.4) * dice.lognormal(0.0, 0.08, count)
    wait_s = 0.002 * dice.lognormal(0.0, 0.4, count)
    wait_s += np.where(dice.random(count) < _LATE, dice.uniform(0.05, 0.3, count), 0.0)
    took_s += wait_s
    found = {"step_s": took_s, "wait_s": wait_s, "wait_share": wait_s / took_s}
    found["samples_per_s"] = 24.0 / took_s
    if kind != "foundation":
        found["tokens_per_s"] = dice.normal(160.0, 8.0, count) / took_s
        found["positions_per_s"] = dice.normal(820.0, 20.0, count) / took_s
        found["filling_share"] = np.zeros(count)
        found["filling_share_of_attention"] = dice.uniform(0.04, 0.09, count)
    return found


def _memory(place: Numbers, dice: np.random.Generator) -> dict[str, Numbers]:
    held = 6.0e8 * dice.uniform(0.9, 1.4) + np.round(dice.normal(0.0, 2.0e6, len(place)))
    return {"memory/bytes": held, "memory/peak_bytes": np.maximum.accumulate(held)}


def _routers(place: Numbers, dice: np.random.Generator, dead: int | None) -> dict[str, Numbers]:
    found: dict[str, Numbers] = {}
    for layer in LAYERS:
        settled = dice.uniform(0.55, 0.9)
        entropy = settled + (0.99 - settled) * np.exp(-place * 5.0)
        noise = dice.normal(0.0, 0.01, len(place))
        found[f"router/{layer}/entropy_share"] = np.clip(entropy + noise, 0.0, 1.0)
        busiest = 0.42 + 0.9 * (1.0 - entropy) + noise
        found[f"router/{layer}/busiest_share"] = np.clip(busiest, 0.4, 1.0)
        gone = (place > 0.5) if dead is not None and layer == LAYERS[-1] else np.zeros(len(place))
        found[f"router/{layer}/unvisited"] = gone.astype(float)
    return found
