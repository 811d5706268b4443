"""Packed experts: all of a layer's feed-forwards in two tensors.

Shapes
    T  tokens    K  experts each token visits    E  experts    I  inner width    D  model width
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from uni_moe import routes
from uni_moe.model.backends.base import LowRank, Weights
from uni_moe.model.backends.choose import backend_of
from uni_moe.model.router import Routing

Exchange = Callable[[Tensor, Routing, Callable[[Tensor, Tensor, Tensor], Tensor]], Tensor]


class Experts(nn.Module):
    """SwiGLU feed-forwards; `gate_up_proj` is [E, 2I, D] (gate first), `down_proj` [E, D, I].

    `low_rank` holds, while an adapter runs, the delta of a parameter by its name. `exchange` is
    there while other processes hold some of the experts: it lets tokens travel.
    """

    def __init__(self, experts: int, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * inner, width))
        self.down_proj = nn.Parameter(torch.empty(experts, width, inner))
        self.low_rank: dict[str, LowRank] = {}
        self.exchange: Exchange | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as LLaMA's feed-forwards do."""
        nn.init.normal_(self.gate_up_proj, std=0.02)
        nn.init.normal_(self.down_proj, std=0.02)

    def forward(self, x_TD: Tensor, routing: Routing) -> Tensor:
        """Return the weighted sum of every token's experts, (T, D)."""
        if self.exchange is not None:
            return self.exchange(x_TD, routing, self._run)
        return self._run(x_TD, routing.weight_TK, routing.expert_TK)

    def _run(self, x_TD: Tensor, share_TK: Tensor, expert_TK: Tensor) -> Tensor:
        """Run the experts that are here."""
        weights = Weights(
            self.gate_up_proj,
            self.down_proj,
            self.low_rank.get("gate_up_proj"),
            self.low_rank.get("down_proj"),
        )
        place = x_TD.device.type
        if not (torch.amp.is_autocast_available(place) and torch.is_autocast_enabled(place)):
            return _run(x_TD, share_TK, expert_TK, weights)
        dtype = torch.get_autocast_dtype(place)
        with torch.autocast(place, enabled=False):  # which knows nothing of packed experts
            return _run(x_TD.to(dtype), share_TK, expert_TK, weights.to(dtype))


def _run(x_TD: Tensor, share_TK: Tensor, expert_TK: Tensor, weights: Weights) -> Tensor:
    run = backend_of(routes.current(), expert_TK, weights)
    return run(x_TD, share_TK, expert_TK, weights)
