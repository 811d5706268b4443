"""One loop for all trainings: the foundation's and the three phases', in one process or many."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from uni_moe import routes
from uni_moe.errors import StageError
from uni_moe.platform import machine, take
from uni_moe.routes import Routes
from uni_moe.runs import Run
from uni_moe.train.batches import Learner, MicroBatch, StepLoss
from uni_moe.train.engine import Engine, EngineOptions
from uni_moe.train.schedule import cosine_with_warmup
from uni_moe.train.state import StateStore, TrainingState
from uni_moe.train.world import from_first, gathered, summed

_RECENT = 20  # steps whose mean loss is told at the end


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. `seed` draws what dropout drops."""

    steps: int
    learning_rate: float
    warmup_share: float
    weight_decay: float
    clip_norm: float
    save_every_steps: int
    seed: int


def train(  # noqa: PLR0913 - a training has this many parts
    learner: Learner,
    schedule: Schedule,
    *,
    states: StateStore,
    run: Run,
    title: str,
    options: EngineOptions | None = None,
) -> dict[str, Any]:
    """Train to the last step, from the last whole state if there is one; return what was found.

    A training that goes on takes the routes that it began with: others would give other bits. All
    ranks call this together; all return the same, and the module ends whole, in the trained state.

    The result holds `validation_loss`: modality -> before and after, and `train_loss` of the last
    steps.

    Raises:
        StageError: the loss is not a number, or a state could not be written. The last state stays.
        ConfigError: this machine lacks a route of a training that shall go on.
    """
    engine = Engine(
        learner.module,
        weight_decay=schedule.weight_decay,
        clip_norm=schedule.clip_norm,
        options=options,
    )
    start, facts = _resume(engine, states, run)
    if not facts:
        begun = {"routes": routes.current().to_json(), "machine": machine()}
        facts = {"before": learner.validate(), "recent": [], **begun}
    run.event(
        "training",
        step=start,
        steps=schedule.steps,
        parameters=len(engine.names),
        ranks=engine.world.size,
    )
    drawn, began = 0, time.monotonic()
    hidden = not engine.world.is_first
    with tqdm(
        total=schedule.steps, initial=start, desc=title, file=sys.stderr, disable=hidden
    ) as bar:
        for step in range(start, schedule.steps):
            row = _one_step(engine, learner, schedule, step)
            drawn += int(row.pop("draws"))
            facts["recent"] = [*facts["recent"], row["loss"]][-_RECENT:]
            rate = drawn / (time.monotonic() - began)
            run.metric(step + 1, {**row, "samples_per_s": round(rate, 2)})
            bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            bar.update()
            if (step + 1) % schedule.save_every_steps == 0 and step + 1 < schedule.steps:
                _save(engine, states, TrainingState(step + 1, engine.tensors(), facts), run)
    states.settle()
    after = learner.validate()
    engine.close()
    return {
        "steps": schedule.steps,
        "train_loss": sum(facts["recent"]) / len(facts["recent"]),
        "validation_loss": {
            name: {"before": facts["before"][name], "after": after[name]} for name in sorted(after)
        },
    }


def _save(engine: Engine, states: StateStore, state: TrainingState, run: Run) -> None:
    if engine.world.is_first:
        states.save(state)
        run.event("state", step=state.step)


def _resume(engine: Engine, states: StateStore, run: Run) -> tuple[int, dict[str, Any]]:
    """Put back the newest whole state, the same on every rank."""
    step = from_first(states.newest() if engine.world.is_first else None)
    if step is None:
        return 0, {}
    state = states.at(step)
    take(Routes.from_json(state.facts["routes"]))
    engine.load_tensors(state.tensors, state.step)
    now, began = machine(), state.facts["machine"]
    other = {name: [began[name], now[name]] for name in now if now[name] != began[name]}
    run.event("resumed", step=state.step, routes=state.facts["routes"], other_machine=other)
    if engine.world.is_first:
        tqdm.write(f"continues at step {state.step}", file=sys.stderr)
        if other:
            tqdm.write(f"not to the bit: it began on another machine {other}", file=sys.stderr)
    return state.step, dict(state.facts)


def _one_step(engine: Engine, learner: Learner, schedule: Schedule, step: int) -> dict[str, float]:
    began = time.monotonic()
    batches = learner.micro_batches(step, engine.world.rank, engine.world.size)
    waited = time.monotonic() - began
    learner.module.train()
    torch.manual_seed(_dice(schedule.seed, step, engine.world.rank))
    counted = summed(torch.tensor(sum(one.count for one in batches), dtype=torch.float64))
    count = float(counted) or 1.0  # a step all of whose samples went learns nothing
    found = [_learn(engine, one, count, last=one is batches[-1]) for one in batches]
    loss, parts = _over_ranks(found, count)
    _finite("loss", loss, step, loss)
    share = cosine_with_warmup(step, steps=schedule.steps, warmup_share=schedule.warmup_share)
    learning_rate = schedule.learning_rate * share
    norm = engine.step(learning_rate)
    _finite("gradient", norm, step, loss)  # no state of these weights is saved: the last one stays
    return {
        "loss": loss,
        **{f"loss/{name}": total / number for name, (total, number) in sorted(parts.items())},
        "learning_rate": learning_rate,
        "gradient_norm": norm,
        "wait_s": round(waited, 4),
        "draws": float(summed(torch.tensor(sum(one.draws for one in batches)))),
    }


def _learn(engine: Engine, batch: MicroBatch, count: float, *, last: bool) -> StepLoss:
    result: StepLoss = engine.forward(batch.inputs)
    engine.backward(result.total, count, last=last)
    return result


def _over_ranks(
    found: list[StepLoss], count: float
) -> tuple[float, dict[str, tuple[float, float]]]:
    """Return the step's mean loss and its parts over micro-batches and ranks."""
    total = torch.stack([one.total.detach().double() for one in found]).sum().cpu()
    loss = float(summed(total)) / count
    parts: dict[str, tuple[float, float]] = {}
    for told in gathered([one.parts for one in found]):
        for one in told:
            _add(parts, one)
    return loss, parts


def _add(parts: dict[str, tuple[float, float]], more: Mapping[str, tuple[float, float]]) -> None:
    for name, (total, number) in more.items():
        before = parts.get(name, (0.0, 0.0))
        parts[name] = (before[0] + total, before[1] + number)


def _dice(seed: int, step: int, rank: int) -> int:
    """Return what a rank's random numbers of a step start from: no state has to be kept."""
    text = f"dropout {seed} {step} {rank}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")


def _finite(name: str, value: float, step: int, loss: float) -> None:
    if not math.isfinite(value):
        raise StageError(
            f"The {name} of step {step + 1} is {value}"
            + ("." if name == "loss" else f", at a loss of {loss}."),
            cause="a learning rate that is too high, or media that decode to nonsense.",
            remedy="lower `learning_rate` of this phase in params.yaml and run again.",
        )
