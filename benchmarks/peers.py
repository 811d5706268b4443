"""Sparse layers of others, and the dense one, built from the same weights as ours.

Shapes
    E  experts    D  model width    I  inner width    J  2 I, gate first
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, MixtralConfig
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from uni_moe.model.moe import SparseFeedForward

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Sizes:
    """How large a layer is, and how many tokens it is given."""

    tokens: int
    width: int
    inner: int
    experts: int
    top_k: int
    dtype: str

    @property
    def weight_bytes(self) -> int:
        """Bytes of all experts' weights."""
        size = DTYPES[self.dtype].itemsize
        return 3 * self.experts * self.width * self.inner * size

    def __str__(self) -> str:
        """Return how tables call it."""
        return (
            f"T={self.tokens} H={self.width} I={self.inner} E={self.experts} top-{self.top_k} "
            f"{self.dtype}"
        )


@dataclass(frozen=True)
class Stacks:
    """The weights of a sparse layer, in the layout that ours and transformers share."""

    router_ED: Tensor
    gate_up_EJD: Tensor
    down_EDI: Tensor
    top_k: int

    @staticmethod
    def draw(sizes: Sizes, seed: int, device: str) -> Stacks:
        """Draw weights; router logits spread by about one."""
        generator = torch.Generator(device).manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            drawn = torch.randn(*shape, generator=generator, device=device) * shape[-1] ** -0.5
            return drawn.to(DTYPES[sizes.dtype])

        experts, width, inner = sizes.experts, sizes.width, sizes.inner
        return Stacks(
            normal(experts, width),
            normal(experts, 2 * inner, width),
            normal(experts, width, inner),
            sizes.top_k,
        )

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Experts, model width, inner width."""
        experts, width, inner = self.down_EDI.shape
        return experts, width, inner


def ours(stacks: Stacks) -> nn.Module:
    """Return our layer, router included."""
    experts, width, inner = stacks.sizes
    layer = SparseFeedForward(width, inner, experts, stacks.top_k)
    return _filled(layer, stacks, "router.weight", "experts.gate_up_proj", "experts.down_proj")


class ThreeLinear(nn.Module):
    """An expert as LLaMA's feed-forward: three matrices of its own."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return down(silu(gate) * up)."""
        y: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


def fill_three(expert: Any, gate_up_JD: Tensor, down_DI: Tensor) -> None:  # noqa: ANN401 - untyped
    """Put one expert's weights into three linear maps."""
    gate, up = gate_up_JD.chunk(2)
    expert.gate_proj.weight.data = gate.clone()
    expert.up_proj.weight.data = up.clone()
    expert.down_proj.weight.data = down_DI.clone()


class LoopFeedForward(nn.Module):
    """The published code's way: every expert looks for its tokens and adds to their rows.

    Source: written from a description of the published code, not from the code.
    """

    def __init__(self, width: int, inner: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(ThreeLinear(width, inner) for _ in range(experts))
        self.top_k = top_k

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted sum of the chosen experts."""
        rows = x.flatten(0, -2)
        chosen_logits, chosen = torch.topk(self.gate(rows), self.top_k)
        shares = F.softmax(chosen_logits, dim=1, dtype=torch.float32).to(rows.dtype)
        total = torch.zeros_like(rows)
        for index, expert in enumerate(self.experts):
            row, choice = torch.where(chosen == index)
            total[row] += shares[row, choice, None] * expert(rows[row])
        return total.view_as(x)

    def fill(self, stacks: Stacks) -> None:
        """Take a layer's weights."""
        self.gate.weight.data = stacks.router_ED.clone()
        for expert, gate_up, down in zip(
            self.experts, stacks.gate_up_EJD, stacks.down_EDI, strict=True
        ):
            fill_three(expert, gate_up, down)


def loop(stacks: Stacks) -> nn.Module:
    """Return the loop over experts."""
    experts, width, inner = stacks.sizes
    layer = LoopFeedForward(width, inner, experts, stacks.top_k)
    layer.fill(stacks)
    return layer


def mixtral(stacks: Stacks, implementation: str) -> nn.Module:
    """Return transformers' sparse block; `implementation` is eager or grouped_mm."""
    experts, width, inner = stacks.sizes
    config = MixtralConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_local_experts=experts,
        num_experts_per_tok=stacks.top_k,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    config._experts_implementation = implementation  # noqa: SLF001 - a block alone has no setter
    return _filled(
        _Batched(MixtralSparseMoeBlock(config)),
        stacks,
        "layer.gate.weight",
        "layer.experts.gate_up_proj",
        "layer.experts.down_proj",
    )


class _Batched(nn.Module):
    """Gives a layer a batch of one sequence; takes the first of several results."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Any = self.layer(x[None] if x.dim() == 2 else x)
        y = y[0] if isinstance(y, tuple) else y
        return y.view_as(x)


def deepspeed_moe(stacks: Stacks) -> nn.Module:
    """Return DeepSpeed's layer, told to drop no token and to draw no expert by chance."""
    from uni_moe.train.engine import bootstrap

    bootstrap()
    from deepspeed.moe.layer import MoE

    experts, width, inner = stacks.sizes
    layer = MoE(
        width,
        ThreeLinear(width, inner),
        num_experts=experts,
        k=stacks.top_k,
        drop_tokens=False,
        top2_2nd_expert_sampling=False,
    )
    layer.set_deepspeed_parallelism()
    inside = layer.deepspeed_moe
    inside.gate.wg.weight.data = stacks.router_ED.clone()
    for index, expert in enumerate(inside.experts.deepspeed_experts):
        fill_three(expert, stacks.gate_up_EJD[index], stacks.down_EDI[index])
    return _Batched(layer)


def dense(stacks: Stacks) -> nn.Module:
    """Return LLaMA's feed-forward with the first expert's weights."""
    _, width, inner = stacks.sizes
    layer = LlamaMLP(LlamaConfig(hidden_size=width, intermediate_size=inner, num_attention_heads=1))
    fill_three(layer, stacks.gate_up_EJD[0], stacks.down_EDI[0])
    return layer


def _filled(layer: nn.Module, stacks: Stacks, router: str, gate_up: str, down: str) -> nn.Module:
    """Put copies of the weights under these names."""
    pairs = {router: stacks.router_ED, gate_up: stacks.gate_up_EJD, down: stacks.down_EDI}
    for name, tensor in pairs.items():
        layer.get_parameter(name).data = tensor.clone()
    return layer


LAYERS: Mapping[str, Callable[[Stacks], nn.Module]] = {
    "ours": ours,
    "loop": loop,
    "mixtral eager": lambda stacks: mixtral(stacks, "eager"),
    "mixtral grouped": lambda stacks: mixtral(stacks, "grouped_mm"),
    "deepspeed": deepspeed_moe,
}
"""Layers that compute the same; `dense` computes as much."""
NEEDS = {"deepspeed": "deepspeed"}
"""Layer -> the package that it needs beside transformers, which may be missing."""
