"""Packed experts: all of a layer's feed-forwards in two tensors.

Shapes
    T  tokens    K  experts each token visits    E  experts    I  inner width    D  model width
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uni_moe import routes
from uni_moe.model.backends.base import LowRank, Weights
from uni_moe.model.backends.choose import backend_of
from uni_moe.model.router import Routing


class Experts(nn.Module):
    """SwiGLU feed-forwards; `gate_up_proj` is [E, 2I, D] (gate first), `down_proj` [E, D, I].

    `low_rank` holds, while an adapter runs, the delta of a parameter by its name.
    """

    def __init__(self, experts: int, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * inner, width))
        self.down_proj = nn.Parameter(torch.empty(experts, width, inner))
        self.low_rank: dict[str, LowRank] = {}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as LLaMA's feed-forwards do."""
        nn.init.normal_(self.gate_up_proj, std=0.02)
        nn.init.normal_(self.down_proj, std=0.02)

    def forward(self, x_TD: Tensor, routing: Routing) -> Tensor:
        """Return the weighted sum of every token's experts, (T, D)."""
        weights = Weights(
            self.gate_up_proj,
            self.down_proj,
            self.low_rank.get("gate_up_proj"),
            self.low_rank.get("down_proj"),
        )
        run = backend_of(routes.current(), routing.expert_TK, weights)
        return run(x_TD, routing.weight_TK, routing.expert_TK, weights)
