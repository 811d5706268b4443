"""What connectors and experts take of a step that does not use them.

A step of conversations of text alone is made by a network with connectors, which learn, and by one
without; a step whose positions all visit one of eight experts is made beside one that keeps all
eight busy. Both are steps of a phase: its module on its engine.

Shapes
    B  sequences    T  positions    E  experts
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, WhisperConfig

from benchmarks import step
from benchmarks.answers import Case, Claim, at_most, rows_of
from benchmarks.places import Run
from benchmarks.rounds import OURS, Contender
from benchmarks.setup import Setup
from benchmarks.step import Shape
from uni_moe.model import adapters
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.parts import learn
from uni_moe.train.learner import PhaseModule

SHAPE = Shape("tune", experts=8, top_k=1)
ALONE, BESIDE = f"{OURS}, no connectors", f"{OURS}, idle connectors"
BUSY, IDLE = f"{OURS}, 8 experts busy", f"{OURS}, 1 of 8 busy"
BARS = {(BESIDE, ALONE): at_most(1.05), (IDLE, BUSY): at_most(1.0)}
_ADAPTED = ("lora.attention", "lora.experts")
_CONNECTORS = ("connector.image", "connector.speech")
_SEES = 64  # numbers of a feature
_SOUND = {
    "query_tokens": 8,
    "layers": 2,
    "width": 64,
    "heads": 4,
    "intermediate_size": 128,
    "window_s": 1,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Sizes of one's own."""
    for name, value in vars(SHAPE).items():
        if name not in ("what", "experts", "top_k"):
            option = f"--{name.replace('_', '-')}"
            parser.add_argument(
                option, type=type(value), default=value, help="default: %(default)s"
            )


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Measure steps that use little of a network beside steps of one that has no more."""
    told = {name: getattr(options, name, value) for name, value in vars(SHAPE).items()}
    shape = Shape(**told)
    measured = setup.compare(partial(runs, shape, setup.seed, setup.device))
    claims = [
        Claim(Contender(what), Contender(over), bar if shape == SHAPE else None)
        for (what, over), bar in BARS.items()
    ]
    yield Case(f"idle parts, {shape}", rows_of(measured, claims), clock=str(setup.clock))


def runs(shape: Shape, seed: int, device: str) -> dict[str, Run]:
    """Build four networks of one decoder, and their optimizers."""
    return {
        ALONE: _steps(network(shape, seed), (*_ADAPTED, "router"), shape, device),
        BESIDE: _steps(
            network(shape, seed, connected=True),
            (*_ADAPTED, "router", *_CONNECTORS),
            shape,
            device,
        ),
        # A router that learned would spread its visits.
        BUSY: _steps(network(shape, seed), _ADAPTED, shape, device),
        IDLE: _steps(with_one_busy(network(shape, seed)), _ADAPTED, shape, device),
    }


def network(shape: Shape, seed: int, *, connected: bool = False) -> UniMoeForConditionalGeneration:
    """Return our network, with connectors of pictures and speech or without."""
    plain = step.network(shape, seed)
    if not connected:
        return plain
    pictures = CLIPVisionConfig(
        hidden_size=_SEES,
        intermediate_size=_SEES,
        num_hidden_layers=1,
        num_attention_heads=4,
        image_size=28,
        patch_size=14,
    )
    speech = WhisperConfig(
        d_model=_SEES,
        encoder_layers=1,
        encoder_attention_heads=4,
        encoder_ffn_dim=_SEES,
        num_mel_bins=80,
        max_source_positions=50,
    )
    config = UniMoeConfig(
        step.text_of(shape),
        pictures,
        speech,
        sparse_layers="interval",
        num_experts=shape.experts,
        experts_per_token=shape.top_k,
        speech_connector=_SOUND,
    )
    model = UniMoeForConditionalGeneration(config)
    model.language_model.load_state_dict(plain.language_model.state_dict())
    return model


def with_one_busy(model: UniMoeForConditionalGeneration) -> UniMoeForConditionalGeneration:
    """Let every router say the same of all experts: each position takes the same one."""
    with torch.no_grad():
        for sparse in model.sparse_layers().values():
            sparse.router.weight.zero_()
    return model


def _steps(
    model: UniMoeForConditionalGeneration, learns: tuple[str, ...], shape: Shape, device: str
) -> Run:
    trainer = Trainer(model.to(device), learns, shape)

    def prepare(index: int) -> Callable[[], object]:
        batch = step.packed(step.draw(replace(shape, what="tune"), index))
        return partial(trainer, {name: tensor.to(device) for name, tensor in batch.items()})

    return prepare


class Trainer(step.Ours):
    """One step as a phase makes it, of a network some of which learns."""

    def __init__(
        self, model: UniMoeForConditionalGeneration, learns: tuple[str, ...], shape: Shape
    ) -> None:
        wrapped = adapters.attach(
            model,
            learns,
            layers=model.config.sparse_layers,
            rank=shape.rank,
            alpha=step.ALPHA_PER_RANK * shape.rank,
            dropout=0.0,
            seed=0,
        )
        learn(wrapped, learns)
        self.model = model
        super().__init__(PhaseModule(wrapped))

    def visits(self, batch: Mapping[str, Tensor]) -> dict[int, list[float]]:
        """Return layer -> how often each expert is visited by a batch."""
        with torch.no_grad():
            out: Any = self.model(**batch, use_cache=False, output_routing_sums=True)
        found = out.routing_sums.items()
        return {layer: sums.table_MX[:, : sums.experts].sum(0).tolist() for layer, sums in found}
