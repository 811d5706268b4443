"""What a sparse layer costs, forward and backward, beside a dense one and the layers of others.

Every call reads an input of its own, so that routing and every expert's rows change as they do in
training: fixed routing flatters libraries that keep a plan per shape.

Shapes
    T  tokens    D  model width    K  experts each token visits
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.answers import Bar, Case, Claim, at_least, at_most, rows_of
from benchmarks.peers import DTYPES, LAYERS, Sizes, Stacks, dense
from benchmarks.places import Run
from benchmarks.rounds import OURS, SHIPPED, TUNED, Contender, Measured
from benchmarks.setup import Setup
from uni_moe.model.backends.base import visits_of

DENSE = "dense of equal FLOPs"
DRIFT = 0.25  # how far a batch's tokens lie from the origin together: loads differ by batch


@dataclass(frozen=True)
class Question:
    """Sizes and the bars that the layer is held to: (contender, over whom) -> bar."""

    sizes: Sizes
    bars: Mapping[tuple[Contender, Contender], Bar] = field(default_factory=dict)


_OURS, _DENSE = Contender(OURS), Contender(DENSE)
SMALL = Sizes(512, 512, 1376, 4, 2, "float32")
QUESTIONS = (
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


def add_options(parser: argparse.ArgumentParser) -> None:
    """Sizes of one layer of one's own, instead of the ones that have bars."""
    for one in fields(Sizes):
        kind, choices = (str, list(DTYPES)) if one.name == "dtype" else (int, None)
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=kind, choices=choices)


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Measure the layers that have bars, or the one that was asked for."""
    return (_case(setup, question) for question in asked(options, QUESTIONS))


def asked(options: argparse.Namespace, questions: Sequence[Question]) -> Sequence[Question]:
    """Return the questions with bars, or the one for these sizes."""
    told = {one.name: getattr(options, one.name) for one in fields(Sizes)}
    given = {name: value for name, value in told.items() if value is not None}
    if not given:
        return questions
    sizes = replace(SMALL, **given)
    return [next((one for one in questions if one.sizes == sizes), Question(sizes))]


def _case(setup: Setup, question: Question) -> Case:
    sizes = question.sizes
    build = partial(runs, sizes, setup.seed, setup.device)
    measured = setup.compare(partial(build, with_ours=True), partial(build, with_ours=False))
    rows = rows_of(measured, claims_of(measured, question, DENSE))
    return Case(str(sizes), rows, {"rows_per_expert": loads(sizes, setup)})


def claims_of(measured: Measured, question: Question, baseline: str) -> list[Claim]:
    """Return ours over the dense layer, and everybody else over ours."""
    pairs = [(_OURS, Contender(baseline))]
    pairs += [(one, _OURS) for one in measured.seconds if one != _OURS]
    return [Claim(*pair, question.bars.get(pair)) for pair in pairs]


def runs(sizes: Sizes, seed: int, device: str, *, with_ours: bool) -> dict[str, Run]:
    """Build all layers from one set of weights."""
    stacks = Stacks.draw(sizes, seed)
    draw = inputs(sizes, seed, device)
    found = {
        name: forward_backward(build(stacks).to(device), draw)
        for name, build in LAYERS.items()
        if with_ours or name != OURS
    }
    wide = inputs(replace(sizes, tokens=sizes.tokens * sizes.top_k), seed, device)
    return {**found, DENSE: forward_backward(dense(stacks).to(device), wide)}


def inputs(sizes: Sizes, seed: int, device: str) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Return what draws call i's tokens, and the gradient that comes back to them."""

    def draw(index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + index)
        drift_D = torch.randn(sizes.width, generator=generator) * DRIFT
        x_TD = torch.randn(sizes.tokens, sizes.width, generator=generator) + drift_D
        towards_TD = torch.randn(sizes.tokens, sizes.width, generator=generator)
        dtype = DTYPES[sizes.dtype]
        return x_TD.to(device, dtype).requires_grad_(), towards_TD.to(device, dtype)

    return draw


def forward_backward(layer: nn.Module, draw: Callable[[int], tuple[Tensor, Tensor]]) -> Run:
    """Return how one call of a layer is made: both passes, with fresh gradients."""

    def prepare(index: int) -> Callable[[], object]:
        x_TD, towards_TD = draw(index)

        def call() -> None:
            layer.zero_grad(set_to_none=True)
            layer(x_TD).backward(towards_TD)

        return call

    return prepare


def loads(sizes: Sizes, setup: Setup, calls: int = 32) -> Any:  # noqa: ANN401 - JSON
    """Return the fewest and the most rows that an expert had in some calls."""
    stacks = Stacks.draw(sizes, setup.seed)
    draw = inputs(sizes, setup.seed, "cpu")
    found = []
    for index in range(calls):
        logits = draw(index)[0].detach() @ stacks.router_ED.T
        found += visits_of(logits.topk(sizes.top_k).indices, sizes.experts).load()
    return f"{min(found)} to {max(found)}"
