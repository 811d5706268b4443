"""The router: which experts each token visits, and with what share.

Shapes
    T  tokens    D  model width    E  experts    K  experts each token visits
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Routing(NamedTuple):
    """A layer's decision for every token; a tuple, so that hooks find its tensors."""

    expert_TK: Tensor
    weight_TK: Tensor
    logits_TE: Tensor

    @property
    def load_E(self) -> Tensor:
        """Visits to each expert."""
        return torch.bincount(self.expert_TK.flatten(), minlength=self.logits_TE.shape[1])

    def where(self, keep_T: Tensor) -> Routing:
        """Return the decision for the tokens that are True in keep_T."""
        return Routing(self.expert_TK[keep_T], self.weight_TK[keep_T], self.logits_TE[keep_T])


class Router(nn.Module):
    """A linear gate; the weights are a softmax over the chosen experts' logits alone.

    That equals a softmax over all experts, renormalized over the chosen. No noise, no capacity, no
    token is dropped. Experts in `masked` are never chosen (for knock-outs).
    """

    def __init__(self, width: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.weight = nn.Parameter(torch.empty(experts, width))
        self.masked: tuple[int, ...] = ()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start near an even choice."""
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x_TD: Tensor) -> Routing:
        """Choose for every token; logits in the model's precision, shares in float32."""
        logits_TE = F.linear(x_TD, self.weight)
        if self.masked:
            logits_TE = logits_TE.index_fill(
                1, torch.tensor(self.masked, device=x_TD.device), -torch.inf
            )
        chosen_TK, expert_TK = logits_TE.topk(self.top_k, dim=-1)
        return Routing(expert_TK, chosen_TK.float().softmax(-1), logits_TE)
