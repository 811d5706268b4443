"""What a sparse layer costs, forward and backward, beside a dense one and the layers of others.

Every call reads an input of its own, so that routing and every expert's rows change as they do in
training: fixed routing flatters libraries that keep a plan per shape. On an accelerator inputs and
weights are drawn where they are used, and a layer of the size of LLaMA-7B's has the bars.

Shapes
    T  tokens    D  model width    K  experts each token visits
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks.answers import Bars, Case, Claim, Number, at_least, at_most, rows_of
from benchmarks.peers import DTYPES, LAYERS, NEEDS, Sizes, Stacks, dense
from benchmarks.places import Lacking, Run, Runs
from benchmarks.rounds import OURS, SHIPPED, TUNED, Contender, Measured
from benchmarks.setup import Setup
from uni_moe.model.backends.base import visits_of

DENSE = "dense of equal FLOPs"
DRIFT = 0.25  # how far a batch's tokens lie from the origin together: loads differ by batch


@dataclass(frozen=True)
class Question:
    """Sizes and the bars that the layer is held to: of time, and of an accelerator's memory."""

    sizes: Sizes
    bars: Bars = field(default_factory=dict)
    memory: Bars = field(default_factory=dict)


_OURS, _DENSE = Contender(OURS), Contender(DENSE)
SMALL = Sizes(512, 512, 1376, 4, 2, "float32")
LARGE = Sizes(8192, 4096, 11008, 4, 2, "bfloat16")
_ON_CPU = (
    Question(
        SMALL,
        {
            (_OURS, _DENSE): at_most(1.15),
            (Contender("loop", SHIPPED), _OURS): at_least(2.0, where="AMD"),
        },
    ),
    Question(
        replace(SMALL, dtype="bfloat16"),
        {(_OURS, _DENSE): at_most(1.20), (Contender("loop"), _OURS): at_least(1.25)},
    ),
    Question(replace(SMALL, tokens=2048, dtype="bfloat16"), {(_OURS, _DENSE): at_most(1.10)}),
    *(
        Question(
            Sizes(512, 512, 512, 64, 2, dtype),
            {
                (Contender(f"mixtral {way}", setting), _OURS): at_least(times)
                for way, times in (("grouped", 1.2), ("eager", 15))
                for setting in (TUNED, SHIPPED)
            },
        )
        for dtype in DTYPES
    ),
)


QUESTIONS = {"cpu": _ON_CPU, "cuda": (Question(LARGE, {(_OURS, _DENSE): at_most(1.10)}),)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Sizes of one layer of one's own, instead of the ones that have bars."""
    for one in fields(Sizes):
        kind, choices = (str, list(DTYPES)) if one.name == "dtype" else (int, None)
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=kind, choices=choices)


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Measure the layers that have bars, or the one that was asked for."""
    return (_case(setup, question) for question in asked(options, QUESTIONS[setup.device]))


def asked(options: argparse.Namespace, questions: Sequence[Question]) -> Sequence[Question]:
    """Return the questions with bars, or the one for these sizes."""
    told = {one.name: getattr(options, one.name) for one in fields(Sizes)}
    given = {name: value for name, value in told.items() if value is not None}
    if not given:
        return questions
    sizes = replace(questions[0].sizes, **given)
    return [next((one for one in questions if one.sizes == sizes), Question(sizes))]


def _case(setup: Setup, question: Question) -> Case:
    build = partial(runs, question.sizes, setup.seed, setup.device)
    measured = setup.compare(partial(build, with_ours=True), partial(build, with_ours=False))
    return case_of(setup, question, str(question.sizes), measured, DENSE)


def case_of(
    setup: Setup, question: Question, title: str, measured: Measured, baseline: str
) -> Case:
    """Hold measurements of layers against a question's bars."""
    rows = rows_of(measured, claims_of(measured, setup.held(question.bars), baseline))
    sparse = {one: n for one, n in measured.peak_bytes.items() if one.name != baseline}
    numbers = memory_of(sparse, question.sizes, setup.held(question.memory))
    facts = {"rows_per_expert": loads(question.sizes, setup)}
    return Case(title, rows, numbers, facts, str(setup.clock))


def claims_of(measured: Measured, bars: Bars, baseline: str) -> list[Claim]:
    """Return ours over the dense layer, everybody else over ours, and every bar beyond those."""
    pairs = [(_OURS, Contender(baseline))]
    pairs += [(one, _OURS) for one in (*measured.seconds, *measured.absent) if one != _OURS]
    pairs += [pair for pair in bars if pair not in pairs]
    return [Claim(*pair, bars.get(pair)) for pair in pairs]


def memory_of(added: Mapping[Contender, int | None], sizes: Sizes, bars: Bars) -> list[Number]:
    """Return what sparse layers hold at most on an accelerator, and beside each other.

    That is a layer's weights and what one call adds to them.
    """
    peaks = {one: sizes.weight_bytes + n for one, n in added.items() if n is not None}
    found = [Number(f"memory of {one}", peak / 1e9, "GB") for one, peak in peaks.items()]
    for (what, over), bar in bars.items():
        known = what in peaks and over in peaks
        ratio = peaks[what] / peaks[over] if known else None
        found.append(Number(f"memory of {what} over {over}", ratio, bar=bar))
    return found


def runs(sizes: Sizes, seed: int, device: str, *, with_ours: bool) -> Runs:
    """Build all layers from one set of weights."""
    stacks = Stacks.draw(sizes, seed, device)
    sparse = {
        name: partial(build, stacks) for name, build in LAYERS.items() if with_ours or name != OURS
    }
    return {
        **built(sparse, sizes, seed, device),
        **built({DENSE: partial(dense, stacks)}, all_visits(sizes), seed, device),
    }


def all_visits(sizes: Sizes) -> Sizes:
    """Return what a dense layer reads to compute as much as all visited experts together."""
    return replace(sizes, tokens=sizes.tokens * sizes.top_k)


def built(
    layers: Mapping[str, Callable[[], nn.Module]], sizes: Sizes, seed: int, device: str
) -> Runs:
    """Build layers where they run, all of whose calls read the same inputs."""
    draw = inputs(sizes, seed, device)
    found: dict[str, Run | Lacking] = {}
    for name, build in layers.items():
        package = NEEDS.get(name)
        if package is not None and find_spec(package) is None:
            found[name] = Lacking(f"{package} is not installed")
            continue
        with torch.device(device):
            found[name] = forward_backward(build().to(device), draw)
    return found


def inputs(sizes: Sizes, seed: int, device: str) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Return what draws call i's tokens, and the gradient that comes back to them."""

    def draw(index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator(device).manual_seed((seed + 1) * 1_000_003 + index)
        normal = partial(torch.randn, generator=generator, device=device)
        drift_D = normal(sizes.width) * DRIFT
        x_TD = normal(sizes.tokens, sizes.width) + drift_D
        towards_TD = normal(sizes.tokens, sizes.width)
        dtype = DTYPES[sizes.dtype]
        return x_TD.to(dtype).requires_grad_(), towards_TD.to(dtype)

    return draw


def forward_backward(layer: nn.Module, draw: Callable[[int], tuple[Tensor, Tensor]]) -> Run:
    """Return how one call of a layer is made: both passes; it leaves no gradient behind."""

    def prepare(index: int) -> Callable[[], object]:
        x_TD, towards_TD = draw(index)

        def call() -> None:
            layer(x_TD).backward(towards_TD)
            layer.zero_grad(set_to_none=True)
            x_TD.grad = None

        return call

    return prepare


def loads(sizes: Sizes, setup: Setup, calls: int = 32) -> str:
    """Return the fewest and the most rows that an expert had in some calls."""
    stacks = Stacks.draw(sizes, setup.seed, setup.device)
    draw = inputs(sizes, setup.seed, setup.device)
    found: list[int] = []
    for index in range(calls):
        logits = draw(index)[0].detach() @ stacks.router_ED.T
        found += visits_of(logits.topk(sizes.top_k).indices, sizes.experts).load()
    return f"{min(found)} to {max(found)}"
