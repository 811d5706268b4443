"""Packed experts: all of a layer's feed-forwards in two tensors.

Shapes
    E  experts    I  inner width    D  model width    R  visits, ordered by expert
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Experts(nn.Module):
    """SwiGLU feed-forwards; `gate_up_proj` is [E, 2I, D] (gate first), `down_proj` [E, D, I]."""

    def __init__(self, experts: int, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * inner, width))
        self.down_proj = nn.Parameter(torch.empty(experts, width, inner))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as LLaMA's feed-forwards do."""
        nn.init.normal_(self.gate_up_proj, std=0.02)
        nn.init.normal_(self.down_proj, std=0.02)

    def forward(self, x_RD: Tensor, load_E: Tensor) -> Tensor:
        """Run each expert on its visits; an expert without visits runs on no rows.

        Every expert is always called, so every one has a gradient and ranks cannot diverge.
        """
        pieces = torch.split(x_RD, load_E.tolist())
        # unbind, not [e]: its gradient fills one stack instead of one stack per expert.
        gate_up, down = self.gate_up_proj.unbind(0), self.down_proj.unbind(0)
        out = []
        for piece, w_in, w_out in zip(pieces, gate_up, down, strict=True):
            gate, up = F.linear(piece, w_in).chunk(2, dim=-1)
            out.append(F.linear(F.silu(gate) * up, w_out))
        return torch.cat(out)
