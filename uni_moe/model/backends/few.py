"""A mixture's layer in compiled code for the few tokens of a step of generation.

Such a step is bound by memory: every weight is read once and used at once for all who visit it.

Shapes
    T  tokens    K  experts each token visits    E  experts    D  model width    I  inner width
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uni_moe.model.backends.base import Weights
from uni_moe.native import MOST_VISITS, Native, takes, threads

# Up to so many tokens it beats a library's products (measured; E = 4, D = 512, I = 1376).
FEW_TOKENS = 32


def are_few(expert_TK: Tensor, weights: Weights) -> bool:
    """Return whether so few tokens are for this way: no gradients, no low-rank deltas."""
    is_plain = weights.gate_up_delta is None and weights.down_delta is None
    fits = len(expert_TK) <= FEW_TOKENS and expert_TK.numel() <= MOST_VISITS
    return fits and is_plain and takes(weights.down_EDI.dtype) and not torch.is_grad_enabled()


@dataclass(frozen=True)
class Few:
    """A backend for what `are_few` accepts."""

    native: Native

    def __call__(
        self, x_TD: Tensor, share_TK: Tensor, expert_TK: Tensor, weights: Weights
    ) -> Tensor:
        """Run every expert on its few visits; sums are in float32."""
        x, dtype = x_TD.contiguous(), weights.down_EDI.dtype
        assert x.dtype == dtype  # as in every product of torch
        act = x.new_empty(expert_TK.numel(), weights.down_EDI.shape[2])
        out = x.new_empty(x.shape, dtype=torch.float32)
        tensors = (
            x,
            expert_TK.contiguous(),
            share_TK.float().contiguous(),
            weights.gate_up_EJD.contiguous(),
            weights.down_EDI.contiguous(),
            act,
            out,
        )
        sizes = (*expert_TK.shape, *weights.down_EDI.shape)
        self.native.call("mixture", dtype, tensors, sizes, threads())
        return out.to(x_TD.dtype)
