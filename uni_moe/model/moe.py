"""A feed-forward layer in which each token visits its best few experts.

Shapes
    T  tokens    D  model width    E  experts    K  experts each token visits
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from uni_moe.model.experts import Experts
from uni_moe.model.router import Router, Routing


class ModalityAdapters(nn.Module):
    """One linear map per modality in front of the router; experts see the unmodified states.

    They start as the identity, so that adding them changes nothing. Every map is always called, so
    every one has a gradient. Source: the 8-expert variant's `fm` block, four 1 x 1 convolutions.
    """

    def __init__(self, kinds: Sequence[str], width: int) -> None:
        super().__init__()
        self.maps = nn.ModuleDict({kind: nn.Linear(width, width) for kind in kinds})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the identity."""
        for one in self.maps.values():
            assert isinstance(one, nn.Linear)
            nn.init.eye_(one.weight)
            nn.init.zeros_(one.bias)

    def forward(self, x_TD: Tensor, kind_T: Tensor) -> Tensor:
        """Return what the router reads; kind_T counts modalities in the order of `kinds`."""
        y_TD = torch.zeros_like(x_TD)
        for index, one in enumerate(self.maps.values()):
            (rows,) = torch.nonzero(kind_T == index, as_tuple=True)
            y_TD = y_TD.index_add(0, rows, one(x_TD[rows]))
        return y_TD


class SparseFeedForward(nn.Module):
    """Stands where a decoder layer has its feed-forward; keeps its last routing for the network.

    `kinds` names the modalities that have an adapter in front of the router; the network says in
    `kind_BT` which one each position has.
    """

    def __init__(
        self, width: int, inner: int, experts: int, top_k: int, kinds: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.router = Router(width, experts, top_k)
        self.experts = Experts(experts, width, inner)
        self.adapters = ModalityAdapters(kinds, width) if kinds else None
        self.kind_BT: Tensor | None = None
        self.routing: Routing | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted sum of the chosen experts, in the shape of x (…, D)."""
        x_TD = x.flatten(0, -2)
        routing = self.router(self._heard(x_TD))
        y_TD: Tensor = self.experts(x_TD, routing)
        self.routing = routing
        return y_TD.view_as(x)

    def _heard(self, x_TD: Tensor) -> Tensor:
        """Return what the router reads."""
        if self.adapters is None:
            return x_TD
        assert self.kind_BT is not None
        heard: Tensor = self.adapters(x_TD, self.kind_BT.flatten())
        return heard
