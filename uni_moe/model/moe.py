"""A feed-forward layer in which each token visits its best few experts.

Shapes
    T  tokens    D  model width    E  experts    K  experts each token visits
    R  visits, T * K, ordered by expert
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uni_moe.model.experts import Experts
from uni_moe.model.router import Router, Routing


class SparseFeedForward(nn.Module):
    """Stands where a decoder layer has its feed-forward; keeps its last routing for the network."""

    def __init__(self, width: int, inner: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.router = Router(width, experts, top_k)
        self.experts = Experts(experts, width, inner)
        self.routing: Routing | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted sum of the chosen experts, in the shape of x (…, D)."""
        x_TD = x.flatten(0, -2)
        routing = self.router(x_TD)
        visit_R = routing.expert_TK.flatten().argsort(stable=True)
        token_R = visit_R // self.router.top_k
        share_R = routing.weight_TK.flatten()[visit_R].to(x_TD.dtype)

        y_RD = self.experts(x_TD[token_R], routing.load_E)
        y_TD = torch.zeros_like(x_TD).index_add(0, token_R, y_RD * share_R[:, None])
        self.routing = routing
        return y_TD.view_as(x)
