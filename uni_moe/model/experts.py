"""Packed experts: all of a layer's feed-forwards in two tensors.

Shapes
    E  experts    I  inner width    D  model width    R  visits, ordered by expert    r  rank
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class LowRank:
    """A low-rank delta of a stack of matrices: scale * up @ down, never multiplied out."""

    down_ErI: Tensor
    up_EOr: Tensor
    scale: float


@dataclass(frozen=True)
class Weights:
    """What a backend runs: the two stacks, and a delta of either."""

    gate_up_EJD: Tensor  # J = 2 I, gate first
    down_EDI: Tensor
    gate_up_delta: LowRank | None = None
    down_delta: LowRank | None = None


Backend = Callable[[Tensor, list[int], Weights], Tensor]


def reference(x_RD: Tensor, load: list[int], weights: Weights) -> Tensor:
    """Run each expert on its visits; an expert without visits runs on no rows.

    Every expert is always called, so every one has a gradient and ranks cannot diverge.
    """
    # unbind, not [e]: its gradient fills one stack instead of one stack per expert.
    gate_up, down = weights.gate_up_EJD.unbind(0), weights.down_EDI.unbind(0)
    enter, leave = _pairs(weights.gate_up_delta), _pairs(weights.down_delta)
    out = []
    for e, piece in enumerate(torch.split(x_RD, load)):
        gate, up = _linear(piece, gate_up[e], enter, e).chunk(2, dim=-1)
        out.append(_linear(F.silu(gate) * up, down[e], leave, e))
    return torch.cat(out)


def _pairs(delta: LowRank | None) -> tuple[tuple[Tensor, Tensor, float], ...]:
    if delta is None:
        return ()
    pairs = zip(delta.down_ErI.unbind(0), delta.up_EOr.unbind(0), strict=True)
    return tuple((down, up, delta.scale) for down, up in pairs)


def _linear(
    x: Tensor, weight: Tensor, pairs: tuple[tuple[Tensor, Tensor, float], ...], e: int
) -> Tensor:
    y = F.linear(x, weight)
    if not pairs:
        return y
    down, up, scale = pairs[e]
    return y + scale * F.linear(F.linear(x, down), up)


BACKENDS: Mapping[str, Backend] = {"reference": reference}


class Experts(nn.Module):
    """SwiGLU feed-forwards; `gate_up_proj` is [E, 2I, D] (gate first), `down_proj` [E, D, I].

    `low_rank` holds, while an adapter runs, the delta of a parameter by its name.
    """

    def __init__(self, experts: int, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * inner, width))
        self.down_proj = nn.Parameter(torch.empty(experts, width, inner))
        self.low_rank: dict[str, LowRank] = {}
        self.backend: Backend = reference
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as LLaMA's feed-forwards do."""
        nn.init.normal_(self.gate_up_proj, std=0.02)
        nn.init.normal_(self.down_proj, std=0.02)

    def forward(self, x_RD: Tensor, load_E: Tensor) -> Tensor:
        """Return every visit's output, (R, D); `load_E` counts the visits of each expert."""
        weights = Weights(
            self.gate_up_proj,
            self.down_proj,
            self.low_rank.get("gate_up_proj"),
            self.low_rank.get("down_proj"),
        )
        return self.backend(x_RD, load_E.tolist(), weights)
