"""One grouped product for all experts: for many of them, and on accelerators that have one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from uni_moe.model.backends.base import LowRank, Weights, combine, visits_of

ALIGNED = 8  # rows must be multiples of 16 bytes, in half precision too


def grouped(x_TD: Tensor, share_TK: Tensor, expert_TK: Tensor, weights: Weights) -> Tensor:
    """Run all experts by `torch.nn.functional.grouped_mm`, low-rank deltas by two more of them."""
    visits = visits_of(expert_TK, len(weights.down_EDI))
    ends_E = visits.end_E.to(torch.int32)
    x_RD = x_TD[visits.token_R]
    gate, up = _linear(x_RD, weights.gate_up_EJD, weights.gate_up_delta, ends_E).chunk(2, dim=-1)
    share_R = share_TK.flatten()[visits.visit_R].to(x_TD.dtype)
    inner_RI = F.silu(gate) * up * share_R[:, None]
    return combine(_linear(inner_RI, weights.down_EDI, weights.down_delta, ends_E), visits)


def _linear(x: Tensor, weight: Tensor, delta: LowRank | None, ends_E: Tensor) -> Tensor:
    y = F.grouped_mm(x, weight.transpose(1, 2), offs=ends_E)
    if delta is None:
        return y
    missing = -delta.down_ErI.shape[1] % ALIGNED  # columns of zeros change no sum
    down_EIr = F.pad(delta.down_ErI, (0, 0, 0, missing)).contiguous().transpose(1, 2)
    up_ErO = F.pad(delta.up_EOr, (0, missing)).contiguous().transpose(1, 2)
    low = F.grouped_mm(x, down_EIr, offs=ends_E)
    return y + delta.scale * F.grouped_mm(low, up_ErO, offs=ends_E)
