"""One loop for all trainings: the foundation's and the three phases', in one process or many."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import torch

from uni_moe import routes
from uni_moe.platform import machine, take
from uni_moe.progress import progress, say
from uni_moe.routes import Routes
from uni_moe.runs import Run
from uni_moe.train.batches import Learner, LooksAhead, MicroBatch, StepLoss, StepReport
from uni_moe.train.engine import Engine, EngineOptions
from uni_moe.train.guard import Decision, stopped
from uni_moe.train.reporting import together
from uni_moe.train.schedule import cosine_with_warmup
from uni_moe.train.state import StateStore, TrainingState
from uni_moe.train.watch import Watch
from uni_moe.train.world import from_first, summed

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
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Train to the last step, from the last whole state if there is one; return what was found.

    A training that goes on takes the routes that it began with: others would give other bits. The
    allocator is this machine's affair. All ranks call this together; all return the same, and the
    module ends in the trained state: whole on the first rank, on others without weights that were
    partitioned.

    The result holds `validation_loss`: modality -> before and after, `train_loss` of the last
    steps, and `skipped_steps`, which the guard left out.

    Raises:
        StageError: a step went wrong, or a state could not be written. The last state stays.
        ConfigError: this machine lacks a route of a training that shall go on.
    """
    engine = Engine(
        learner.module,
        weight_decay=schedule.weight_decay,
        clip_norm=schedule.clip_norm,
        options=options,
    )
    watch = watch or Watch()
    start, facts = _resume(engine, states, watch, run)
    if not facts:
        watch.begin()
        begun = {"routes": routes.current().to_json(), "machine": machine()}
        facts = {"before": learner.validate(), "recent": [], "skipped": [], **begun}
    run.event(
        "training",
        step=start,
        steps=schedule.steps,
        parameters=len(engine.names),
        ranks=engine.world.size,
    )
    training = _Training(engine, learner, schedule, states, watch, run, start, facts)
    try:
        training.run_to_the_end(title)
    finally:
        states.wait()
    states.settle()
    facts = training.facts
    after = learner.validate()
    engine.close()
    return {
        "steps": schedule.steps,
        "train_loss": sum(facts["recent"]) / len(facts["recent"]),
        "skipped_steps": facts["skipped"],
        "validation_loss": {
            name: {"before": facts["before"][name], "after": after[name]} for name in sorted(after)
        },
    }


@dataclass
class _Training:
    """A training at work; `facts` grows by what is found."""

    engine: Engine
    learner: Learner
    schedule: Schedule
    states: StateStore
    watch: Watch
    run: Run
    step: int  # how many are done
    facts: dict[str, Any]
    losses: list[float] = field(default_factory=list)  # of the steps since the last state

    def run_to_the_end(self, title: str) -> None:
        """Take every step that is left."""
        total, hidden = self.schedule.steps, not self.engine.world.is_first
        with progress(title=title, total=total, initial=self.step, hidden=hidden) as bar:
            while self.step < total:
                if self.step + 1 in self.facts["skipped"]:
                    self.step += 1
                else:
                    self._take_one(bar)
                bar.n = self.step
                bar.update(0)

    def _take_one(self, bar: Any) -> None:  # noqa: ANN401 - tqdm is untyped
        report = one_step(self.engine, self.learner, self.schedule, self.step)
        decision = self.watch.see(report, self.run, self.facts["skipped"])
        for alarm in decision.alarms if self.engine.world.is_first else ():
            say(f"alarm at step {alarm.step}: {alarm.text}")
        if decision.action == "skip":
            self._go_back(decision)
            return
        self.step += 1
        self.losses.append(report.loss)
        self.facts["recent"] = [*self.facts["recent"], report.loss][-_RECENT:]
        bar.set_postfix(loss=f"{report.loss:.3f}", refresh=False)
        if self.step % self.schedule.save_every_steps == 0 and self.step < self.schedule.steps:
            self._save()

    def _save(self) -> None:
        is_first = self.engine.world.is_first
        if is_first:
            self.states.settle()  # before there is another one: two would stand side by side
        tensors = self.engine.state()
        if is_first:
            self.facts["watch"] = self.watch.keep()
            self.states.save(TrainingState(self.step, fmean(self.losses), tensors, self.facts))
        self.losses = []

    def _go_back(self, decision: Decision) -> None:
        """Return to the newest state; the step that went wrong is left out from now on."""
        assert decision.alarm is not None
        skipped = [*self.facts["skipped"], decision.alarm.step]
        step, facts = _resume(self.engine, self.states, self.watch, self.run)
        if not facts:
            raise stopped(decision, decision.alarm.draws)  # there is nothing to go back to
        self.step, self.facts, self.losses = step, {**facts, "skipped": skipped}, []
        self.run.event("skipped", step=decision.alarm.step, back_to=step)


def _resume(
    engine: Engine, states: StateStore, watch: Watch, run: Run
) -> tuple[int, dict[str, Any]]:
    """Put back the newest whole state, the same on every rank."""
    step = from_first(_newest(states, watch, run) if engine.world.is_first else None)
    if step is None:
        return 0, {}
    state = states.at(step)
    # An allocator changes no bits: the one that this process began with is what fits here.
    began_with = Routes.from_json(state.facts["routes"])
    take(replace(began_with, allocator=routes.current().allocator))
    updates = state.step - sum(left_out <= state.step for left_out in state.facts["skipped"])
    engine.load_tensors(state.tensors, updates)
    watch.resume(state.facts["watch"])
    now, began = machine(), state.facts["machine"]
    other = {name: [began[name], now[name]] for name in now if now[name] != began[name]}
    taken = routes.current().to_json()
    run.event("resumed", step=state.step, routes=taken, other_machine=other)
    if engine.world.is_first:
        say(f"continues at step {state.step}")
        if other:
            say(f"not to the bit: it began on another machine {other}")
    return state.step, dict(state.facts)


def _newest(states: StateStore, watch: Watch, run: Run) -> int | None:
    """Return the step of the newest state that the guard of today would have led to."""

    def is_ours(step: int, facts: Mapping[str, Any]) -> bool:
        ours = watch.would_have(facts["watch"], facts["skipped"])
        if not ours:
            run.event("other_guard", step=step)
            told = "the guard of today would not have left out the same steps before it"
            say(f"the state at step {step} is given up: {told}")
        return ours

    return states.newest(is_ours)


def one_step(engine: Engine, learner: Learner, schedule: Schedule, step: int) -> StepReport:
    """Take step number `step`, counted from 0; all ranks take it together."""
    began = time.monotonic()
    batches = learner.micro_batches(step, engine.world.rank, engine.world.size)
    fetched_s = time.monotonic() - began
    if isinstance(learner.module, LooksAhead):
        learner.module.look_ahead(batches)
    learner.module.train()
    torch.manual_seed(_dice(schedule.seed, step, engine.world.rank))
    counted = summed(torch.tensor(sum(one.count for one in batches), dtype=torch.float64))
    count = float(counted) or 1.0  # a step all of whose samples went learns nothing
    found = [_learn(engine, one, count, last=one is batches[-1]) for one in batches]
    share = cosine_with_warmup(step, steps=schedule.steps, warmup_share=schedule.warmup_share)
    learning_rate = schedule.learning_rate * share
    norm = engine.step(learning_rate)
    total = torch.stack([one.whole(count).detach().double() for one in found]).sum().cpu()
    loss = float(summed(total)) / count
    return StepReport(
        step=step + 1,
        loss=loss,
        gradient_norm=norm,
        learning_rate=learning_rate,
        took_s=time.monotonic() - began,
        **vars(together(batches, found, fetched_s=fetched_s)),
    )


def _learn(engine: Engine, batch: MicroBatch, count: float, *, last: bool) -> StepLoss:
    result: StepLoss = engine.forward(batch.inputs)
    engine.backward(result.whole(count), count, last=last)
    return result


def _dice(seed: int, step: int, rank: int) -> int:
    """Return what a rank's random numbers of a step start from: no state has to be kept."""
    text = f"dropout {seed} {step} {rank}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")
