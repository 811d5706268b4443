"""Whether ranks learn what one process learns, whatever each of them meets in a step.

Text alone, no row at all, a modality that one rank never meets, nothing to learn, so few tokens
that experts stay without one: ranks take the step on the road of a phase. One process computes
all its conversations at once, each in a padded row, without an engine. Their gradients are held
together as AdamW takes them, clipped to a norm of 1 as all recipes clip: they are read from its
first moment after one step from nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import inf, isfinite
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.answers import Case, Number, at_most
from benchmarks.drawn_layouts import SPREADS, StepLayout, draw, variety
from benchmarks.layout_learner import LayoutLearner, network
from benchmarks.on_ranks import on_ranks
from benchmarks.setup import Setup
from uni_moe.launch import here
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.train.engine import Engine, EngineOptions
from uni_moe.train.learner import PhaseModule
from uni_moe.train.loop import Schedule, one_step
from uni_moe.train.partitions import MOMENTS, WEIGHT

OPTIONS = {
    "ZeRO 0": EngineOptions(),
    "ZeRO 1": EngineOptions(zero_stage=1),
    "ZeRO 2": EngineOptions(zero_stage=2),
    "ZeRO 3": EngineOptions(zero_stage=3),
    "experts": EngineOptions(expert_parallel=2),
}
BAR, NORM_BAR = 1e-6, 1e-5
_FIRST_MOMENT, _BETA = MOMENTS[0], 0.9
_CLIP_NORM = 1.0
_STILL = Schedule(
    1, 0.0, warmup_share=0.0, weight_decay=0.0, clip_norm=_CLIP_NORM, save_every_steps=1, seed=0
)
"""Nothing moves: every layout meets the same weights."""


@dataclass(frozen=True)
class Found:
    """What one rank found of a layout.

    `off` is the largest difference of any clipped gradient, `scale` the largest of them,
    `norm_off` how far the norm before clipping is off, relative to it; what is no number is
    infinitely far off. `unvisited` counts experts without a token.
    """

    seed: int
    off: float
    scale: float
    norm_off: float
    unvisited: int
    seconds: float

    @property
    def held(self) -> float:
        """What the bar limits; nothing is near where the norm is no number."""
        return self.off if isfinite(self.norm_off) else inf


def add_options(parser: argparse.ArgumentParser) -> None:
    """How many; `--seed` is the first layout's."""
    parser.add_argument("--count", type=int, default=2000, help="layouts; default: %(default)s")
    parser.add_argument("--ranks", type=int, default=2, help="2, or 4; default: %(default)s")
    parser.add_argument("--patience-s", type=float, default=60.0, help="of one: %(default)s")


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Hold all layouts together; one that hangs is told by its seed."""
    seeds = range(setup.seed, setup.seed + options.count)
    found = compared(seeds, options.ranks, patience_s=options.patience_s)
    yield case_of(found, options.ranks)


def compared(seeds: Sequence[int], ranks: int, *, patience_s: float) -> list[Found]:
    """Let ranks take the step of every layout; return the worst of what they found of each.

    Raises:
        StageError: a layout hangs or breaks a rank.
    """
    every = on_ranks(learn_layouts, list(seeds), patience_s=patience_s, ranks=ranks)
    return [worst(found) for found in every]


def worst(found: Sequence[Found]) -> Found:
    """Return what the rank found that is furthest off, with the norm that is."""
    most = max(found, key=lambda one: one.off)
    return replace(most, norm_off=max(one.norm_off for one in found))


def finite(difference: float) -> float:
    """Return a difference, infinite where it is no number: `max` would pass over that."""
    return difference if isfinite(difference) else inf


def case_of(found: Sequence[Found], ranks: int) -> Case:
    """Hold what was found against the bar, by how weights and moments are spread."""
    numbers = []
    for spread in SPREADS:
        own = [one for one in found if draw(one.seed, ranks).spread == spread]
        if own:
            furthest = max(own, key=lambda one: one.held)
            facts = {
                "layouts": len(own),
                "worst_seed": furthest.seed,
                "median_scale": median(one.scale for one in own),
                "with_experts_without_a_token": sum(one.unvisited > 0 for one in own),
                "median_seconds": median(one.seconds for one in own),
            }
            what = f"{len(own)} layouts, {spread}: a gradient is off by at most"
            numbers.append(Number(what, furthest.held, bar=at_most(BAR), facts=facts))
            what = f"{spread}: a norm before clipping is off by at most, relative"
            norm_off = max(one.norm_off for one in own)
            numbers.append(Number(what, norm_off, bar=at_most(NORM_BAR)))
    title = f"steps on {ranks} ranks beside one process"
    held = variety(draw(one.seed, ranks) for one in found)
    return Case(title, numbers=numbers, facts=held)


def learn_layouts(seeds: Sequence[int]) -> Iterator[tuple[int, Found | None]]:
    """Take the steps of layouts as one of the ranks; yield each seed before and what was found."""
    torch.set_num_threads(1)
    model, processor = network()
    alone = PhaseModule(deepcopy(model))
    layouts = [draw(seed, here().size) for seed in seeds]
    for spread, options in OPTIONS.items():
        own = [layout for layout in layouts if layout.spread == spread]
        if own:
            yield from _at(own, options, PhaseModule(deepcopy(model)), alone, processor)


def _at(
    layouts: Sequence[StepLayout],
    options: EngineOptions,
    module: PhaseModule,
    alone: PhaseModule,
    processor: UniMoeProcessor,
) -> Iterator[tuple[int, Found | None]]:
    start = _start(module)
    engine = Engine(module, weight_decay=0.0, clip_norm=_CLIP_NORM, options=options)
    for layout in layouts:
        yield layout.seed, None
        began = time.perf_counter()
        engine.load_tensors(start, 0)
        learner = LayoutLearner(module, layout, processor)
        report = one_step(engine, learner, _STILL, 0)
        tensors = dict(engine.tensors())
        found = {name: tensors[f"{_FIRST_MOMENT}/{name}"] / (1.0 - _BETA) for name in engine.names}
        expected, norm = gradients(alone, learner)
        off = max(finite(float((found[name] - one).abs().max())) for name, one in expected.items())
        yield (
            layout.seed,
            Found(
                layout.seed,
                off,
                max(float(one.abs().max()) for one in expected.values()),
                finite(abs(report.gradient_norm - norm) / max(norm, BAR)),
                sum(int((sums.visits_ME.sum(0) == 0).sum()) for sums in report.routing.values()),
                time.perf_counter() - began,
            ),
        )
    engine.close()


def _start(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights that learn and moments of nothing, as an engine keeps them."""
    named = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
    moments = {f"{key}/{name}": torch.zeros_like(p) for name, p in named.items() for key in MOMENTS}
    return {f"{WEIGHT}/{name}": p for name, p in named.items()} | moments


def gradients(alone: PhaseModule, learner: LayoutLearner) -> tuple[dict[str, Tensor], float]:
    """Return a step's gradients as one process has them, without ranks, rows and micro-batches.

    They are clipped; beside them stands their norm before that.
    """
    alone.train()
    alone.zero_grad(set_to_none=True)
    batch = learner.at_once()
    if batch is not None:
        (alone(batch.inputs).total / (batch.count or 1.0)).backward()
    learned = {name: p for name, p in alone.named_parameters() if p.requires_grad}
    norm = float(nn.utils.clip_grad_norm_(learned.values(), _CLIP_NORM))
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in learned.items()}
    return found, norm
