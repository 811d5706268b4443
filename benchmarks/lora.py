"""What low-rank adapters on experts cost, forward and backward, beside peft's own ways.

The base is frozen and the adapters learn, in float32 as peft keeps them whatever the base has.

Shapes
    E  experts    D  model width    I  inner width    J  2 I, gate first    r  rank
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from benchmarks import layer, peers
from benchmarks.answers import Bars, Case, at_least, at_most
from benchmarks.layer import Question
from benchmarks.peers import Sizes, Stacks
from benchmarks.places import Runs
from benchmarks.rounds import OURS, Contender
from benchmarks.setup import Setup
from uni_moe.model import adapters

DENSE = "dense + peft of equal FLOPs"
GROUPED = "mixtral grouped + peft"
RANK, SCALE = 16, 2
_OURS, _DENSE = Contender(OURS), Contender(DENSE)
_GROUPED = Contender(GROUPED)
_BARS_ON_CPU: Mapping[int, Bars] = {
    8: {(_OURS, _DENSE): at_most(1.12), (_GROUPED, _OURS): at_least(2.2)},
    4: {(_OURS, _DENSE): at_most(1.12)},
}
QUESTIONS = {
    "cpu": tuple(
        Question(replace(layer.SMALL, experts=experts, dtype=dtype), bars)
        for experts, bars in _BARS_ON_CPU.items()
        for dtype in peers.DTYPES
    ),
    "cuda": (
        Question(
            replace(layer.LARGE, experts=8),
            {(_GROUPED, _OURS): at_least(1.8)},
            memory={(_OURS, _GROUPED): at_most(0.65)},
        ),
    ),
}


@dataclass(frozen=True)
class Factors:
    """Every expert's two adapters, up @ down each."""

    enter_down_ErD: Tensor
    enter_up_EJr: Tensor
    leave_down_ErI: Tensor
    leave_up_EDr: Tensor

    @staticmethod
    def draw(sizes: Sizes, rank: int, seed: int, device: str) -> Factors:
        """Draw both factors; a fresh adapter's second would be zero."""
        generator = torch.Generator(device).manual_seed(seed)
        experts, width, inner = sizes.experts, sizes.width, sizes.inner

        def normal(*shape: int) -> Tensor:
            drawn = torch.randn(experts, *shape, generator=generator, device=device)
            return drawn * 0.1 * shape[-1] ** -0.5

        return Factors(
            normal(rank, width), normal(2 * inner, rank), normal(rank, inner), normal(width, rank)
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Sizes of one layer of one's own, and the rank."""
    layer.add_options(parser)
    parser.add_argument("--rank", type=int, default=RANK, help="default: %(default)s")


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Measure the layers that have bars, or the one that was asked for."""
    asked = layer.asked(options, QUESTIONS[setup.device])
    return (_case(setup, question, options.rank) for question in asked)


def _case(setup: Setup, question: Question, rank: int) -> Case:
    build = partial(runs, question.sizes, rank, setup.seed, setup.device)
    measured = setup.compare(partial(build, with_ours=True), partial(build, with_ours=False))
    title = f"{question.sizes}, adapters of rank {rank}"
    return layer.case_of(setup, question, title, measured, DENSE)


def runs(sizes: Sizes, rank: int, seed: int, device: str, *, with_ours: bool) -> Runs:
    """Build all layers from one set of weights and one of adapters."""
    stacks = Stacks.draw(sizes, seed, device)
    factors = Factors.draw(sizes, rank, seed, device)
    sparse = {
        name: partial(build, stacks, factors)
        for name, build in LAYERS.items()
        if with_ours or name != OURS
    }
    flat = {DENSE: partial(dense, stacks, factors)}
    return {
        **layer.built(sparse, sizes, seed, device),
        **layer.built(flat, layer.all_visits(sizes), seed, device),
    }


class _Holder(nn.Module):
    """A decoder layer as far as adapters look at it: a feed-forward called mlp."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.mlp(x)
        return y


def ours(stacks: Stacks, factors: Factors) -> nn.Module:
    """Return our layer with the adapters of the tune phase."""
    rank = factors.enter_down_ErD.shape[1]
    wrapped = adapters.attach(
        _Holder(peers.ours(stacks)),
        ["lora.experts"],
        layers=[0],
        rank=rank,
        alpha=SCALE * rank,
        dropout=0.0,
        seed=0,
    )
    return _packed(wrapped, factors)


def mixtral(stacks: Stacks, factors: Factors, implementation: str) -> nn.Module:
    """Return transformers' block with stock peft on its packed experts."""
    names = [f"experts.{name}" for name in ("gate_up_proj", "down_proj")]
    holder = _Holder(peers.mixtral(stacks, implementation))
    return _packed(_peft(holder, factors, target_parameters=names), factors)


def loop(stacks: Stacks, factors: Factors) -> nn.Module:
    """Return the published code's way: a loop over experts whose linear maps peft wraps."""
    names = r".*experts\.\d+\.(gate|up|down)_proj"
    wrapped = _peft(_Holder(peers.loop(stacks)), factors, target_modules=names)
    for index in range(len(factors.enter_up_EJr)):
        _fill_three(wrapped, f"mlp.experts.{index}.", factors, index)
    return wrapped


def dense(stacks: Stacks, factors: Factors) -> nn.Module:
    """Return LLaMA's feed-forward, wrapped by peft, with the first expert's adapters."""
    names = r".*(gate|up|down)_proj"
    wrapped = _peft(_Holder(peers.dense(stacks)), factors, target_modules=names)
    _fill_three(wrapped, "mlp.", factors, 0)
    return wrapped


def _peft(holder: nn.Module, factors: Factors, **targets: object) -> nn.Module:
    rank = factors.enter_down_ErD.shape[1]
    config = LoraConfig(r=rank, lora_alpha=SCALE * rank, bias="none", **targets)
    wrapped: nn.Module = get_peft_model(holder, config)
    return wrapped


def _packed(wrapped: nn.Module, factors: Factors) -> nn.Module:
    """Fill adapters of packed experts: A counts experts slowest, B fastest."""
    pairs = {
        "gate_up_proj": (factors.enter_down_ErD, factors.enter_up_EJr),
        "down_proj": (factors.leave_down_ErI, factors.leave_up_EDr),
    }
    for module in wrapped.modules():
        name = getattr(module, "parameter_name", None)
        if name in pairs:
            down, up = pairs[name]
            _fill(module, down.flatten(0, 1), up.permute(1, 2, 0).flatten(1))
    return wrapped


def _fill_three(wrapped: nn.Module, prefix: str, factors: Factors, index: int) -> None:
    """Fill one expert's three adapters; gate and up have the first factor in common."""
    gate, up = factors.enter_up_EJr[index].chunk(2)
    down = factors.enter_down_ErD[index]
    leave = factors.leave_down_ErI[index], factors.leave_up_EDr[index]
    for name, pair in {"gate": (down, gate), "up": (down, up), "down": leave}.items():
        _fill(wrapped.get_submodule(f"base_model.model.{prefix}{name}_proj"), *pair)


def _fill(module: nn.Module, down: Tensor, up: Tensor) -> None:
    module.get_parameter("lora_A.default.weight").data.copy_(down)
    module.get_parameter("lora_B.default.weight").data.copy_(up)


LAYERS: Mapping[str, Callable[[Stacks, Factors], nn.Module]] = {
    OURS: ours,
    "loop + peft": loop,
    "mixtral eager + peft": partial(mixtral, implementation="eager"),
    GROUPED: partial(mixtral, implementation="grouped_mm"),
}
"""Layers that compute the same; `dense` computes as much."""
