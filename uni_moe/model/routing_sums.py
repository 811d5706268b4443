"""What routers did, summed by modality: small enough to tell at every step.

Shapes
    T  tokens    E  experts    K  experts each token visits    M  modalities    L  layers
    X  2 E + 2: visits, then shares of the router's softmax, its entropy, tokens
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uni_moe.model.config import KINDS
from uni_moe.model.router import Routing


@dataclass(frozen=True)
class RoutingSums:
    """One layer's sums over tokens by modality; they add up over micro-batches and ranks."""

    table_MX: Tensor

    @property
    def experts(self) -> int:
        """How many experts the layer has."""
        return (self.table_MX.shape[1] - 2) // 2

    @property
    def visits_ME(self) -> Tensor:
        """Visits to each expert."""
        return self.table_MX[:, : self.experts]

    @property
    def entropy_M(self) -> Tensor:
        """Sums of the entropy of these shares, in nats."""
        return self.table_MX[:, -2]

    @property
    def tokens_M(self) -> Tensor:
        """Tokens."""
        return self.table_MX[:, -1]


def routing_sums(routing: Mapping[int, Routing], kind_T: Tensor) -> dict[int, RoutingSums]:
    """Return layer -> sums. kind_T counts modalities in the order of KINDS; len(KINDS) is padding.

    Nothing leaves the device and nothing waits for it. Sums of one call are exact to float32.
    """
    return {layer: RoutingSums(_table(one, kind_T)) for layer, one in routing.items()}


def stacked(sums: Mapping[int, RoutingSums]) -> Tensor:
    """Return all layers' tables as one tensor (L, M, X), to move or to reduce at once."""
    return torch.stack([one.table_MX for _, one in sorted(sums.items())])


def unstacked(tables_LMX: Tensor, layers: Sequence[int]) -> dict[int, RoutingSums]:
    """Return what `stacked` joined; `layers` in ascending order."""
    return {
        layer: RoutingSums(table)
        for layer, table in zip(sorted(layers), tables_LMX.unbind(), strict=True)
    }


def _table(routing: Routing, kind_T: Tensor) -> Tensor:
    logits_TE = routing.logits_TE.detach().float()
    # On a CPU a softmax over a few columns takes four times as long as this.
    share_TE = (logits_TE - logits_TE.logsumexp(-1, keepdim=True)).exp()
    visit_TE = torch.zeros_like(share_TE).scatter_(1, routing.expert_TK, 1.0)
    entropy_T1 = torch.special.entr(share_TE).sum(-1, keepdim=True)  # 0 where a share is 0
    row_TX = torch.cat([visit_TE, share_TE, entropy_T1, torch.ones_like(entropy_T1)], dim=1)
    # Adding by index is slow on an accelerator that keeps an order.
    is_own_MT = kind_T == torch.arange(len(KINDS), device=kind_T.device)[:, None]
    return row_TX.where(is_own_MT[:, :, None], 0.0).sum(1).double()
