"""One loop for all trainings: the foundation's and the three phases'."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn
from tqdm import tqdm

from uni_moe import routes
from uni_moe.errors import StageError
from uni_moe.platform import machine, take
from uni_moe.routes import Routes
from uni_moe.runs import Run
from uni_moe.train.engine import Engine
from uni_moe.train.schedule import cosine_with_warmup
from uni_moe.train.state import StateStore, TrainingState, random_state, restore_random


@dataclass(frozen=True)
class StepLoss:
    """The loss of one batch, and its parts: name -> (sum, count).

    `beside` holds what stands beside the loss of the next token, without its weight.
    """

    loss: Tensor
    parts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    beside: Mapping[str, float] = field(default_factory=dict)


class Learner(Protocol):
    """Something that can be trained: a module, and batches as a pure function of the step."""

    @property
    def module(self) -> nn.Module:
        """What learns: called with a batch, it returns a StepLoss."""

    def batch(self, step: int) -> Any:  # noqa: ANN401 - the learner's own type
        """Return the batch of a step, whatever happened before."""

    def validate(self) -> dict[str, float]:
        """Return the validation loss by modality."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_share: float
    weight_decay: float
    clip_norm: float
    save_every_steps: int


def train(
    learner: Learner, schedule: Schedule, *, states: StateStore, run: Run, title: str
) -> dict[str, Any]:
    """Train to the last step, from the last whole state if there is one; return what was found.

    A training that goes on takes the routes that it began with: others would give other bits.

    The result holds `validation_loss`: modality -> before and after, and `train_loss` of the last
    steps. The module ends in the trained state.

    Raises:
        StageError: the loss is not a number. The last state stays.
        ConfigError: this machine lacks a route of a training that shall go on.
    """
    engine = Engine(
        learner.module,
        batch_size=schedule.batch_size,
        weight_decay=schedule.weight_decay,
        clip_norm=schedule.clip_norm,
    )
    start, facts = _resume(engine, states, run)
    if not facts:
        begun = {"routes": routes.current().to_json(), "machine": machine()}
        facts = {"before": learner.validate(), "recent": [], **begun}
    began = time.monotonic()
    run.event("training", step=start, steps=schedule.steps, parameters=len(engine.names))
    with tqdm(total=schedule.steps, initial=start, desc=title, file=sys.stderr) as bar:
        for step in range(start, schedule.steps):
            row = _one_step(engine, learner, schedule, step)
            facts["recent"] = [*facts["recent"], row["loss"]][-20:]
            rate = (step + 1 - start) * schedule.batch_size / (time.monotonic() - began)
            run.metric(step + 1, {**row, "samples_per_s": round(rate, 2)})
            bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            bar.update()
            if (step + 1) % schedule.save_every_steps == 0 and step + 1 < schedule.steps:
                states.save(TrainingState(step + 1, engine.tensors(), random_state(), facts))
                run.event("state", step=step + 1)
    after = learner.validate()
    engine.close()
    return {
        "steps": schedule.steps,
        "train_loss": sum(facts["recent"]) / len(facts["recent"]),
        "validation_loss": {
            name: {"before": facts["before"][name], "after": after[name]} for name in sorted(after)
        },
    }


def _resume(engine: Engine, states: StateStore, run: Run) -> tuple[int, dict[str, Any]]:
    state = states.latest()
    if state is None:
        return 0, {}
    take(Routes.from_json(state.facts["routes"]))
    engine.load_tensors(dict(state.tensors))
    restore_random(state.random)
    here, began = machine(), state.facts["machine"]
    other = {name: [began[name], here[name]] for name in here if here[name] != began[name]}
    run.event("resumed", step=state.step, routes=state.facts["routes"], other_machine=other)
    tqdm.write(f"continues at step {state.step}", file=sys.stderr)
    if other:
        tqdm.write(f"not to the bit: it began on another machine {other}", file=sys.stderr)
    return state.step, dict(state.facts)


def _one_step(engine: Engine, learner: Learner, schedule: Schedule, step: int) -> dict[str, float]:
    began = time.monotonic()
    batch = learner.batch(step)
    waited = time.monotonic() - began
    learner.module.train()
    result: StepLoss = engine.forward(batch)
    loss = float(result.loss.detach())
    if not math.isfinite(loss):
        raise StageError(
            f"The loss of step {step + 1} is {loss}.",
            cause="a learning rate that is too high, or media that decode to nonsense.",
            remedy="lower `learning_rate` of this phase in params.yaml and run again.",
        )
    share = cosine_with_warmup(step, steps=schedule.steps, warmup_share=schedule.warmup_share)
    learning_rate = schedule.learning_rate * share
    norm = engine.step(result.loss, learning_rate)
    if not math.isfinite(norm):  # no state of these weights is saved: the last one stays
        raise StageError(
            f"The gradient of step {step + 1} is {norm}, at a loss of {loss}.",
            cause="a learning rate that is too high, or media that decode to nonsense.",
            remedy="lower `learning_rate` of this phase in params.yaml and run again.",
        )
    parts = {f"loss/{name}": total / count for name, (total, count) in result.parts.items()}
    parts |= {f"beside/{name}": value for name, value in result.beside.items()}
    return {
        "loss": loss,
        **parts,
        "learning_rate": learning_rate,
        "gradient_norm": norm,
        "wait_s": round(waited, 4),
    }
