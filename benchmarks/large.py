"""A step of tuning at the paper's size on an accelerator, beside the way of the published code.

LLaMA-7B with four experts in every second layer, random weights, bfloat16, adapters on attention
and experts. The published way (see `step`) trains as its script for one GPU does: a step in two
parts, plain attention, activations computed again, adapters in bfloat16, too. Beside it stands what
is best for it: the whole batch at once, fused attention, all activations kept. All conversations
are equally long, so nothing is padded; real ones make the published way slower yet. Ours takes the
road of the phases: their module, their precision, their engine.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import step
from benchmarks.answers import Case, Claim, Number, at_least, rows_of
from benchmarks.places import Run
from benchmarks.rounds import OURS, Contender, middle
from benchmarks.setup import Setup
from benchmarks.step import PUBLISHED, Shape
from uni_moe.errors import ConfigError
from uni_moe.model.prompt import IGNORED
from uni_moe.train.learner import PhaseModule
from uni_moe.train.precision import hold
from uni_moe.train.work import device_peak, work_of

AT_BEST = f"{PUBLISHED}, at its best"
PARTS = 2  # of a step in the published script: 2 times 4 conversations
SHAPE = Shape(
    batch=8,
    positions=750,
    filled_share=1.0,
    width=4096,
    inner=11008,
    layers=32,
    heads=32,
    rank=8,
)
TIMES, SAMPLES_A_SECOND = 3.0, 12.0
_GIB = 2**30


def add_options(parser: argparse.ArgumentParser) -> None:
    """How many conversations a step has, and how much smaller the network may be."""
    for name in ("batch", "positions", "layers"):
        default = getattr(SHAPE, name)
        parser.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Measure steps of all three in one process.

    Raises:
        ConfigError: there is no accelerator.
    """
    if setup.device == "cpu":
        raise ConfigError(
            "A 7B model is not trained here: torch sees no accelerator.",
            cause="its weights alone are 25 GiB, for each of two contenders.",
            remedy="run this on a GPU with 100 GB and more; `step` asks the same of a small one.",
        )
    told = {name: getattr(options, name) for name in ("batch", "positions", "layers")}
    yield _case(setup, Shape(**{**vars(SHAPE), **told}))


def _case(setup: Setup, shape: Shape) -> Case:
    built: dict[str, nn.Module] = {}
    measured = setup.compare(partial(runs, shape, setup.seed, setup.device, built))
    ours = Contender(OURS)
    claims = [
        Claim(Contender(PUBLISHED), ours, at_least(TIMES)),
        Claim(Contender(AT_BEST), ours),
    ]
    batch = step.draw(shape, 0)
    labels = int((batch["labels"] != IGNORED).sum())
    flops = work_of(built[OURS]).of(shape.batch * shape.positions, labels)
    peak_flops = device_peak("bfloat16")
    numbers = []
    for name in (OURS, PUBLISHED, AT_BEST):
        one = Contender(name)
        seconds = middle(measured.seconds[one])[1]
        rate = shape.batch / seconds
        bar = at_least(SAMPLES_A_SECOND, "h200") if name == OURS else None
        mfu = None if peak_flops is None else 100 * flops / seconds / peak_flops
        held = sum(p.numel() * p.element_size() for p in built[name].parameters())
        peak = (measured.peak_bytes[one] or 0) + held
        numbers += [
            Number(f"{name}: samples of {shape.positions} tokens", rate, "/s", bar=bar),
            Number(f"{name}: model FLOPs utilization", mfu, "%"),
            Number(f"{name}: peak memory", peak / _GIB, "GiB"),
        ]
    title = str(shape).replace("float32", "bfloat16")
    return Case(title, rows_of(measured, claims), numbers, {"labels": labels}, str(setup.clock))


def runs(shape: Shape, seed: int, device: str, built: dict[str, nn.Module]) -> dict[str, Run]:
    """Build both networks from one set of weights; put them into `built`."""
    with _born(device):
        model = step.network(shape, seed)
        theirs = step.published(shape, model).to(torch.bfloat16)
        learner = step.learner_of(model, shape)
    hold(learner, "bfloat16")
    built |= {OURS: learner, PUBLISHED: theirs, AT_BEST: theirs}
    ours = step.Ours(PhaseModule(learner, "bfloat16"))
    stepped = partial(step.stepped, shape=shape, device=device)
    trainer = step.Published(theirs)
    return {
        OURS: stepped(ours, lay=step.packed),
        PUBLISHED: stepped(_AsScript(trainer, theirs)),
        AT_BEST: stepped(_AtBest(trainer, theirs)),
    }


class _AsScript:
    """A step as the published script makes it."""

    def __init__(self, trainer: step.Published, model: nn.Module) -> None:
        self._trainer, self._base = trainer, model.get_base_model()  # type: ignore[operator] # peft

    def __call__(self, batch: Mapping[str, Tensor]) -> float:
        self._base.gradient_checkpointing_enable({"use_reentrant": False})
        self._base.set_attn_implementation("eager")
        return self._trainer(batch, PARTS)


class _AtBest(_AsScript):
    """The same step with everything that is faster."""

    def __call__(self, batch: Mapping[str, Tensor]) -> float:
        self._base.gradient_checkpointing_disable()
        self._base.set_attn_implementation("sdpa")
        return self._trainer(batch)


@contextmanager
def _born(device: str) -> Iterator[None]:
    """Let what is built be born on a device, in bfloat16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)
