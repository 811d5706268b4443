"""What one optimizer step costs, beside the way of the published code with the same weights.

The published way, written from a description of it: a loop over experts of three linear maps each,
padding, logits of every position in float32, AdamW tensor by tensor, and peft's wrapper around
every linear map where adapters learn. Both have the same machine settings and read the same
conversations; ours takes the road of the phases: their module on their engine, conversations packed
one behind the other. Beside it stands ours with the padding of the published way.

Shapes
    B  sequences    T  positions    V  vocabulary
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.answers import Case, Claim, at_least, rows_of
from benchmarks.peers import LoopFeedForward, Stacks
from benchmarks.places import Run
from benchmarks.rounds import OURS, SHIPPED, Contender
from benchmarks.setup import Setup
from uni_moe.model import adapters
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.parts import learn
from uni_moe.model.prompt import IGNORED
from uni_moe.train.engine import Engine
from uni_moe.train.learner import PhaseModule

PUBLISHED, PADDED = "published way", f"{OURS}, padded"
BARS = {"tune": 2.8, "full": 2.6}
TUNED_PARTS = ("lora.attention", "lora.experts", "router")
ALPHA_PER_RANK = 2
RATE, CLIP_NORM = 1e-4, 1.0


@dataclass(frozen=True)
class Shape:
    """Sizes of the network and of a batch; the shares say what of it is read and learned."""

    what: str = "tune"
    batch: int = 4
    positions: int = 256
    filled_share: float = 0.74
    label_share: float = 0.3
    width: int = 256
    inner: int = 688
    layers: int = 8
    heads: int = 8
    experts: int = 4
    top_k: int = 2
    vocabulary: int = 32_000
    rank: int = 16

    def __str__(self) -> str:
        """Return how tables call it."""
        return (
            f"{self.what}, float32, {self.layers} layers, every second sparse, H={self.width} "
            f"I={self.inner} E={self.experts} V={self.vocabulary}, "
            f"batch {self.batch} x {self.positions}"
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which steps, and sizes of one's own."""
    parser.add_argument("--what", nargs="+", choices=list(BARS), default=list(BARS))
    for name, value in vars(Shape()).items():
        if name != "what":
            option = f"--{name.replace('_', '-')}"
            parser.add_argument(
                option, type=type(value), default=value, help="default: %(default)s"
            )


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Measure a step of tuning with adapters, and one that trains all weights."""
    told = {name: getattr(options, name) for name in vars(Shape()) if name != "what"}
    return (_case(setup, Shape(what, **told)) for what in options.what)


def _case(setup: Setup, shape: Shape) -> Case:
    build = partial(runs, shape, setup.seed, setup.device)
    measured = setup.compare(partial(build, with_ours=True), partial(build, with_ours=False))
    ours, theirs = Contender(OURS), Contender(PUBLISHED)
    asked = setup.device == "cpu" and shape == Shape(shape.what)
    bar = at_least(BARS[shape.what]) if asked else None
    claims = [
        Claim(ours, theirs),
        Claim(theirs, ours, bar),
        Claim(Contender(PADDED), ours),
    ]
    if not setup.tuned_only:
        claims.append(Claim(Contender(PUBLISHED, SHIPPED), ours))
    batches = [draw(shape, index) for index in range(32)]
    facts = {
        "slots": shape.batch * shape.positions,
        "tokens": round(sum(int(b["attention_mask"].sum()) for b in batches) / len(batches)),
        "labels": round(sum(int((b["labels"] != IGNORED).sum()) for b in batches) / len(batches)),
    }
    return Case(str(shape), rows_of(measured, claims), (), facts, str(setup.clock))


def runs(shape: Shape, seed: int, device: str, *, with_ours: bool) -> dict[str, Run]:
    """Build both networks from one set of weights, and their optimizers."""
    model = network(shape, seed)
    theirs = stepped(Published(published(shape, model).to(device)), shape, device)
    if not with_ours:
        return {PUBLISHED: theirs}
    ours = Ours(PhaseModule(learner_of(model.to(device), shape)))
    return {
        OURS: stepped(ours, shape, device, packed),
        PADDED: stepped(ours, shape, device),
        PUBLISHED: theirs,
    }


def stepped(
    trainer: Callable[[Mapping[str, Tensor]], float],
    shape: Shape,
    device: str,
    lay: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
) -> Run:
    """Return how a step is made of a batch of its own, laid out in some way."""

    def prepare(index: int) -> Callable[[], object]:
        batch = {name: tensor.to(device) for name, tensor in lay(draw(shape, index)).items()}
        return partial(trainer, batch)

    return prepare


def packed(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Lay a padded batch's sequences one behind the other in a single row."""
    there_BT = batch["attention_mask"].bool()
    segment_P = torch.arange(len(there_BT)).repeat_interleave(there_BT.sum(1))
    return {
        "input_ids": batch["input_ids"][there_BT][None],
        "labels": batch["labels"][there_BT][None],
        "segment_BT": segment_P[None],
    }


def draw(shape: Shape, index: int) -> dict[str, Tensor]:
    """Draw a batch: sequences of different length, padded to the right, labels at their end."""
    generator = torch.Generator().manual_seed(index)
    size = (shape.batch, shape.positions)
    least = 2 * shape.filled_share - 1  # lengths are even between this share and all
    length_B1 = (least + torch.rand(shape.batch, 1, generator=generator) * (1 - least)) * size[1]
    place_T = torch.arange(shape.positions)
    there_BT = place_T < length_B1
    learned_BT = there_BT & (place_T >= length_B1 * (1 - shape.label_share))
    ids_BT = torch.randint(3, shape.vocabulary, size, generator=generator)
    return {
        "input_ids": ids_BT.where(there_BT, 0),
        "attention_mask": there_BT.long(),
        "labels": ids_BT.where(learned_BT, IGNORED),
    }


def network(shape: Shape, seed: int) -> UniMoeForConditionalGeneration:
    """Return our network without encoders."""
    torch.manual_seed(seed)
    config = UniMoeConfig(
        text_of(shape),
        sparse_layers="interval",
        num_experts=shape.experts,
        experts_per_token=shape.top_k,
    )
    return UniMoeForConditionalGeneration(config)


def text_of(shape: Shape) -> LlamaConfig:
    """Return the sizes of the language model."""
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=max(shape.positions, 512),
        pad_token_id=0,
    )


class Ours:
    """One step as a phase makes it."""

    def __init__(self, module: PhaseModule) -> None:
        self._engine = engine_of(module)

    def __call__(self, batch: Mapping[str, Any]) -> float:
        """Make a step; return its loss."""
        result = self._engine.forward(batch)
        labels = float(result.by_draw[:, 1].sum())
        self._engine.backward(result.total, labels, last=True)
        self._engine.step(RATE)
        return float(result.total.detach()) / labels


def learner_of(model: UniMoeForConditionalGeneration, shape: Shape) -> nn.Module:
    """Return what learns: our network with the adapters of the tune phase, or all of it."""
    if shape.what == "full":
        learn(model, ("language",))
        return model
    wrapped = adapters.attach(
        model,
        TUNED_PARTS,
        layers=model.config.sparse_layers,
        rank=shape.rank,
        alpha=ALPHA_PER_RANK * shape.rank,
        dropout=0.0,
        seed=0,
    )
    learn(wrapped, TUNED_PARTS)
    return wrapped


def engine_of(module: nn.Module) -> Engine:
    """Return the engine of a phase that trains what of a module learns."""
    return Engine(module.train(), weight_decay=0.0, clip_norm=CLIP_NORM)


class Published:
    """One step as the published code makes it."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model.train()
        self._learns = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._learns, lr=RATE, weight_decay=0.0, foreach=False, fused=False
        )

    def __call__(self, batch: Mapping[str, Tensor], parts: int = 1) -> float:
        """Make a step of a batch that is computed in so many parts; return its loss."""
        self._optimizer.zero_grad()
        total = 0.0
        for ids_BT, mask_BT, labels_BT in zip(
            *(batch[name].chunk(parts) for name in ("input_ids", "attention_mask", "labels")),
            strict=True,
        ):
            out = self._model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False)
            said, wanted = out.logits.float()[:, :-1].flatten(0, 1), labels_BT[:, 1:].flatten()
            loss = F.cross_entropy(said, wanted, ignore_index=IGNORED) / parts
            loss.backward()
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(self._learns, CLIP_NORM)
        self._optimizer.step()
        return total


def published(shape: Shape, ours: UniMoeForConditionalGeneration) -> nn.Module:
    """Return the published way's network with the weights of ours, ready to learn."""
    model = LlamaForCausalLM(text_of(shape))
    own = ours.language_model.state_dict()
    model.load_state_dict(own, strict=False)
    for index, sparse in ours.sparse_layers().items():
        loop = LoopFeedForward(shape.width, shape.inner, shape.experts, shape.top_k)
        stacks = sparse.experts
        loop.fill(
            Stacks(
                sparse.router.weight.detach(),
                stacks.gate_up_proj.detach(),
                stacks.down_proj.detach(),
                shape.top_k,
            )
        )
        model.model.layers[index].mlp = loop
    return model if shape.what == "full" else _wrapped(model, shape)


def _wrapped(model: nn.Module, shape: Shape) -> nn.Module:
    """Wrap attention and experts by peft; routers learn, too."""
    names = r".*(self_attn\.[qkvo]_proj|mlp\.experts\.\d+\.(gate|up|down)_proj)"
    config = LoraConfig(
        r=shape.rank, lora_alpha=ALPHA_PER_RANK * shape.rank, bias="none", target_modules=names
    )
    wrapped: nn.Module = get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if name.endswith("mlp.gate.weight"):
            parameter.requires_grad = True
    return wrapped
