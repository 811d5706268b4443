"""What the ledger and the telemetry take of a step, at the size of the playground's tune phase.

What a training does for them is done beside a step that is not watched, from what a real step
returned. The telemetry sums every layer's routing, brings it and the draws' losses off the device,
looks for alarms and writes its lines. The ledger hashes every draw and goes to disk with each
training state. That state is written beside the steps that follow; what it takes of them is
measured where every step has one. A whole step that is watched stands beside one that is not; that
is told without a bar, because two steps differ by more than what is asked for. Two ranks also bring
what they computed together; there pairs of steps, watched and not, stand beside each other by the
hundred, and their middle has a bar.

Shapes
    T  positions    E  experts    K  experts each token visits
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import distributed, nn

from benchmarks import step
from benchmarks.answers import Case, Claim, Number, at_most, rows_of
from benchmarks.on_ranks import on_ranks
from benchmarks.places import Run
from benchmarks.rounds import OURS, WALL, Contender, middle
from benchmarks.setup import Setup
from benchmarks.step import Shape
from uni_moe.launch import here
from uni_moe.model.config import KINDS
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.prompt import IGNORED
from uni_moe.model.routing_sums import routing_sums
from uni_moe.runs import Run as Record
from uni_moe.train.batches import MicroBatch, Seen, StepLoss, StepReport
from uni_moe.train.learner import PhaseModule
from uni_moe.train.ledger import Ledger
from uni_moe.train.reporting import together
from uni_moe.train.state import StateStore, TrainingState
from uni_moe.train.telemetry import Telemetry, write
from uni_moe.train.watch import PLAIN, Watch
from uni_moe.train.world import join

PLAYGROUND = Shape(
    "tune",
    batch=32,
    positions=64,
    width=128,
    inner=256,
    layers=4,
    heads=4,
    experts=5,
    vocabulary=512,
    rank=8,
)
STATE_STEPS = 50  # from one training state to the next
LEDGER, TELEMETRY = f"{OURS}, the ledger of a step", f"{OURS}, the telemetry of a step"
WATCHED = f"{OURS}, a watched step"
_OURS, _LEDGER = Contender(OURS), Contender(LEDGER)
BARS = {_LEDGER: at_most(0.01), Contender(TELEMETRY): at_most(0.02)}
_SAVING = at_most(0.02)
_WATCHED_BY_TWO = at_most(0.02)
_COMPUTED = "CPU time of the first rank"
_CLOCKS = {_COMPUTED: time.process_time, WALL: time.perf_counter}
_PAIRS_A_ROUND, _WARM_PAIRS, _PATIENCE_S = 20, 5, 900.0
_WAITS = 5  # for the disk, whose middle is told
_SAVED_STEPS = 8  # in a row


def add_options(parser: argparse.ArgumentParser) -> None:
    """Sizes of one's own."""
    for one in fields(Shape):
        if one.name != "what":
            value = getattr(PLAYGROUND, one.name)
            option = f"--{one.name.replace('_', '-')}"
            parser.add_argument(
                option, type=type(value), default=value, help="default: %(default)s"
            )


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Measure what watching takes of one step."""
    told = {one.name: getattr(options, one.name) for one in fields(Shape) if one.name != "what"}
    shape = Shape(PLAYGROUND.what, **told)
    with tempfile.TemporaryDirectory() as folder:
        yield _case(setup, shape, Path(folder))
        yield _case_of_ranks(shape, setup.rounds * _PAIRS_A_ROUND, Path(folder))


def _case(setup: Setup, shape: Shape, folder: Path) -> Case:
    measured = setup.compare(partial(runs, shape, setup.seed, setup.device, folder))
    ledger = measured.seconds[_LEDGER]
    ledger[:] = [seconds / STATE_STEPS for seconds in ledger]
    asked = shape == PLAYGROUND
    claims = [Claim(one, _OURS, bar if asked else None) for one, bar in BARS.items()]
    claims.append(Claim(Contender(WATCHED), _OURS))
    share = waited_s(shape, folder) / STATE_STEPS / middle(measured.seconds[_OURS])[1]
    waits = Number("waiting for the disk beside it, in shares of a step", share)
    saves = Number(
        f"training states, one every {STATE_STEPS} steps, in shares of a step",
        saving_share(shape, setup.seed, setup.device, folder) / STATE_STEPS,
        bar=_SAVING if asked else None,
    )
    return Case(str(shape), rows_of(measured, claims), [waits, saves], {}, str(setup.clock))


def _case_of_ranks(shape: Shape, pairs: int, folder: Path) -> Case:
    found = shares_of_ranks(shape, pairs, folder)
    what = "a watched step over one that is not, beyond 1"
    numbers = []
    for clock, shares in found.items():
        low, share, high = middle(shares)
        facts = {"pairs": len(shares), "quartiles": [low, high]}
        bar = _WATCHED_BY_TWO if shape == PLAYGROUND and clock == _COMPUTED else None
        numbers.append(Number(f"{what}, {clock}", share, bar=bar, facts=facts))
    return Case(f"two ranks on the CPU, {shape}", numbers=numbers)


def shares_of_ranks(shape: Shape, pairs: int, folder: Path) -> dict[str, list[float]]:
    """Return what watching adds to a step of two ranks, by clock, as shares of it for each pair.

    It is the first rank's, which has all to tell. Its wait for the other one is in the wall's time
    alone, which another program's work moves.

    Raises:
        StageError: a rank hangs or died.
    """
    found = on_ranks(beside_each_other, [(shape, pairs, folder)], patience_s=_PATIENCE_S)
    shares: dict[str, list[float]] = found[0][0]
    return shares


def beside_each_other(items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Make pairs of steps as one of two ranks, watched and not, in turn the first."""
    for shape, pairs, folder in items:
        yield str(shape), None
        rank = join().rank
        torch.set_num_threads(1)
        modules = [step.learner_of(step.network(shape, 0), shape) for _ in range(2)]
        bare = Step(Unwatched(modules[0]))
        watched = Watched(PhaseModule(modules[1]), folder / f"rank-{rank}")
        shares: dict[str, list[float]] = {clock: [] for clock in _CLOCKS}
        for number in range(_WARM_PAIRS + pairs):
            batch = micro_batch(shape, 2 * number + rank, "cpu")
            order = (bare, watched) if number % 2 else (watched, bare)
            took = {one: _step_s(one, batch) for one in order}
            for clock in _CLOCKS if number >= _WARM_PAIRS else ():
                shares[clock].append(took[watched][clock] / took[bare][clock] - 1.0)
        yield str(shape), shares


def _step_s(trainer: Callable[[MicroBatch], object], batch: MicroBatch) -> dict[str, float]:
    distributed.barrier()
    began = {clock: read() for clock, read in _CLOCKS.items()}
    trainer(batch)
    return {clock: read() - began[clock] for clock, read in _CLOCKS.items()}


def runs(shape: Shape, seed: int, device: str, folder: Path) -> dict[str, Run]:
    """Build a step that is not watched, one that is, and what watching does of it alone."""
    models = [step.network(shape, seed).to(device) for _ in range(3)]
    bare, watched = (step.learner_of(model, shape) for model in models[:2])
    ledger = Books(shape, folder / "ledger")
    telemetry = Seeing(models[2].train(), micro_batch(shape, 0, device), folder / "telemetry")
    return {
        OURS: _on_batches(Step(Unwatched(bare)), shape, device),
        WATCHED: _on_batches(Watched(PhaseModule(watched), folder / "watched"), shape, device),
        LEDGER: lambda _: ledger,
        TELEMETRY: lambda _: telemetry,
    }


def _on_batches(trainer: Callable[[MicroBatch], object], shape: Shape, device: str) -> Run:
    return lambda index: partial(trainer, micro_batch(shape, index, device))


class Unwatched(nn.Module):
    """Calls the network as a phase does, and tells its loss alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Mapping[str, Any]) -> StepLoss:
        """Return the batch's summed loss."""
        out = self.model(**batch, use_cache=False)
        return StepLoss(out.loss * out.loss_tokens_B.sum())


class Step:
    """One step of a phase."""

    def __init__(self, module: nn.Module) -> None:
        self._engine = step.engine_of(module)

    def __call__(self, batch: MicroBatch) -> StepLoss:
        """Make a step; return what its module told."""
        found: StepLoss = self._engine.forward(batch.inputs)
        self._engine.backward(found.total, batch.count, last=True)
        self._engine.step(step.RATE)
        return found


class Watched(Step):
    """One step that leaves in a folder what a training leaves there."""

    def __init__(self, module: nn.Module, folder: Path) -> None:
        super().__init__(module)
        self._run, self._watch, self._step = (
            run_in(folder),
            Watch(ledger=Ledger(folder / "ledger")),
            0,
        )
        self._watch.begin()

    def __call__(self, batch: MicroBatch) -> StepLoss:
        """Make a step and see it."""
        found = super().__call__(batch)
        self._step += 1
        report = report_of(self._step, batch, found)  # all ranks bring it together
        if here().is_first:
            self._watch.see(report, self._run, [])
        if self._step % STATE_STEPS == 0:
            self._watch.keep()
        return found


class Seeing:
    """What the telemetry does of one step: of what a real one returned, again and again."""

    def __init__(
        self, model: UniMoeForConditionalGeneration, batch: MicroBatch, folder: Path
    ) -> None:
        self._telemetry, self._run, self._step = Telemetry(PLAIN), run_in(folder), 0
        self._batch = batch
        self._out = model(**batch.inputs, use_cache=False, output_routing=True)
        self._kind_T = torch.full((batch.positions,), KINDS.index("text")).to(model.device)

    def __call__(self) -> None:
        """Sum, bring over, look for alarms and write."""
        out = self._out
        found = StepLoss(
            out.loss.detach(),
            by_draw=torch.stack([out.loss_sum_B.detach(), out.loss_tokens_B], dim=1),
            routing=routing_sums(out.routing, self._kind_T),
        )
        self._step += 1
        told = self._telemetry.add(report_of(self._step, self._batch, found))
        write(self._run, self._step, told)


class Books:
    """What the ledger does from one training state to the next."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        batch = micro_batch(shape, 0, "cpu")
        tokens = torch.tensor([float(one.tokens) for one in batch.seen])
        found = StepLoss(torch.ones(()), by_draw=torch.stack([torch.ones_like(tokens), tokens], 1))
        self._report = report_of(0, batch, found)
        self._ledger, self._step = Ledger(folder), 0
        self._ledger.begin()

    def __call__(self) -> None:
        """Record as many steps as lie between two states, and bring them to disk."""
        for _ in range(STATE_STEPS):
            self._step += 1
            self._ledger.add(replace(self._report, step=self._step))
        self._ledger.position()


def micro_batch(shape: Shape, index: int, device: str) -> MicroBatch:
    """Draw a packed batch and name its draws."""
    batch = step.packed(step.draw(shape, index))
    learned = batch["labels"][0] != IGNORED
    tokens = torch.bincount(batch["segment_BT"][0][learned], minlength=shape.batch).tolist()
    return MicroBatch(
        {name: tensor.to(device) for name, tensor in batch.items()},
        float(sum(tokens)),
        shape.batch,
        tuple(seen(slot, index, count) for slot, count in enumerate(tokens)),
        batch["labels"].numel(),
    )


def seen(slot: int, index: int, tokens: int) -> Seen:
    """Name a draw as long as names are."""
    key = f"playground/text-{index * 32 + slot:06d}"
    sample = hashlib.sha256(key.encode()).hexdigest()
    return Seen(slot, key, sample, "text", "playground", tokens, truncated=0)


def report_of(number: int, batch: MicroBatch, found: StepLoss) -> StepReport:
    """Return what the loop tells of a step."""
    joined = together([batch], [found])
    loss = float(found.total.detach()) / batch.count
    return StepReport(
        step=number,
        loss=loss,
        gradient_norm=1.0,
        learning_rate=step.RATE,
        took_s=1.0,
        **vars(joined),
    )


def run_in(folder: Path) -> Record:
    """Return a run that is written into this folder."""
    folder.mkdir(parents=True)
    return Record(folder.name, "tune", folder, {"artifacts": {}})


class Saving(Step):
    """One step after which a training state is saved, as a training does."""

    def __init__(self, module: nn.Module, folder: Path) -> None:
        super().__init__(module)
        self.states, self._step = StateStore(folder), 0

    def __call__(self, batch: MicroBatch) -> StepLoss:
        """Make a step, and begin to write its state once the one before is written."""
        found = super().__call__(batch)
        self._step += 1
        self.states.settle()
        self.states.save(TrainingState(self._step, 1.0, self._engine.state(), {}))
        return found


def saving_share(shape: Shape, seed: int, device: str, folder: Path) -> float:
    """Return what a state takes of the steps beside it, in shares of a step, by the wall's clock.

    One is saved at every step, and waits for the one before: no training saves as often.
    """
    modules = [
        Unwatched(step.learner_of(step.network(shape, seed).to(device), shape)) for _ in range(2)
    ]
    bare, saving = Step(modules[0]), Saving(modules[1], folder / "states")
    batch = micro_batch(shape, 0, device)
    shares = []
    for _ in range(_WAITS):
        alone, beside = (_took_s(one, batch) for one in (bare, saving))
        shares.append(beside / alone - 1.0)
    saving.states.settle()
    return median(shares)


def _took_s(trainer: Callable[[MicroBatch], object], batch: MicroBatch) -> float:
    began = time.perf_counter()
    for _ in range(_SAVED_STEPS):
        trainer(batch)
    return time.perf_counter() - began


def waited_s(shape: Shape, folder: Path) -> float:
    """Return how long a ledger that goes to disk waits for it; its thread's clock stands still."""
    books, found = Books(shape, folder / "waits"), []
    for _ in range(_WAITS):
        began, computed = time.perf_counter(), time.thread_time()
        books()
        found.append(time.perf_counter() - began - (time.thread_time() - computed))
    return median(found)
