"""What every backend of packed experts is given.

Shapes
    T  tokens    K  experts each token visits    R  visits, T * K    E  experts
    D  model width    I  inner width    J  2 I, gate first    r  rank of a low-rank delta
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """A low-rank delta of a stack of matrices: scale * up @ down, never multiplied out."""

    down_ErI: Tensor
    up_EOr: Tensor
    scale: float

    def to(self, dtype: torch.dtype) -> LowRank:
        """Return it in another precision, differentiably."""
        return LowRank(self.down_ErI.to(dtype), self.up_EOr.to(dtype), self.scale)


@dataclass(frozen=True)
class Weights:
    """The two stacks of all experts, and a delta of either."""

    gate_up_EJD: Tensor
    down_EDI: Tensor
    gate_up_delta: LowRank | None = None
    down_delta: LowRank | None = None

    def to(self, dtype: torch.dtype) -> Weights:
        """Return them in another precision, differentiably."""
        first, second = self.gate_up_delta, self.down_delta
        return Weights(
            self.gate_up_EJD.to(dtype),
            self.down_EDI.to(dtype),
            None if first is None else first.to(dtype),
            None if second is None else second.to(dtype),
        )


@dataclass(frozen=True)
class Visits:
    """Who visits whom: `visit_R` numbers visits (token * K + k) ordered by expert, then token.

    `end_E` is where each expert's visits end.
    """

    visit_R: Tensor
    end_E: Tensor
    top_k: int

    @property
    def token_R(self) -> Tensor:
        """The token of every visit."""
        return self.visit_R // self.top_k

    @property
    def load_E(self) -> Tensor:
        """How many visits each expert has."""
        return self.end_E.diff(prepend=self.end_E.new_zeros(1))

    def load(self) -> list[int]:
        """Return the same for who walks over experts; an accelerator is waited for."""
        counts: list[int] = self.load_E.tolist()
        return counts


def visits_of(expert_TK: Tensor, experts: int) -> Visits:
    """Order all visits by expert; a stable sort, so one routing has one order."""
    flat = expert_TK.flatten()
    ordered_R, visit_R = flat.sort(stable=True)
    end_E = torch.searchsorted(ordered_R, torch.arange(experts, device=flat.device), right=True)
    return Visits(visit_R, end_E, expert_TK.shape[1])


Backend = Callable[[Tensor, Tensor, Tensor, Weights], Tensor]
"""(x_TD, share_TK in float32, expert_TK, weights) -> y_TD, each token's weighted sum of experts."""


def combine(y_RD: Tensor, visits: Visits) -> Tensor:
    """Sum each token's visits, (T, D): by a gather, whose order no device changes."""
    place_R = visits.visit_R.argsort()
    return y_RD[place_R].unflatten(0, (-1, visits.top_k)).sum(1)
