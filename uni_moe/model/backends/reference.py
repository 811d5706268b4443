"""The plain way: a loop over the experts, as a reader would write it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from uni_moe.model.backends.base import LowRank, Weights, combine, visits_of

_Pairs = tuple[tuple[Tensor, Tensor, float], ...]


def reference(x_TD: Tensor, share_TK: Tensor, expert_TK: Tensor, weights: Weights) -> Tensor:
    """Run each expert on its visits; an expert without visits runs on no rows.

    Every expert is always called, so every one has a gradient and ranks cannot diverge.
    """
    # unbind, not [e]: its gradient fills one stack instead of one stack per expert.
    gate_up, down = weights.gate_up_EJD.unbind(0), weights.down_EDI.unbind(0)
    visits = visits_of(expert_TK, len(down))
    enter, leave = _pairs(weights.gate_up_delta), _pairs(weights.down_delta)
    out = []
    for e, piece in enumerate(torch.split(x_TD[visits.token_R], visits.load())):
        gate, up = _linear(piece, gate_up[e], enter, e).chunk(2, dim=-1)
        out.append(_linear(F.silu(gate) * up, down[e], leave, e))
    share_R = share_TK.flatten()[visits.visit_R].to(x_TD.dtype)
    return combine(torch.cat(out) * share_R[:, None], visits)


def _pairs(delta: LowRank | None) -> _Pairs:
    if delta is None:
        return ()
    pairs = zip(delta.down_ErI.unbind(0), delta.up_EOr.unbind(0), strict=True)
    return tuple((down, up, delta.scale) for down, up in pairs)


def _linear(x: Tensor, weight: Tensor, pairs: _Pairs, e: int) -> Tensor:
    y = F.linear(x, weight)
    if not pairs:
        return y
    down, up, scale = pairs[e]
    return y + scale * F.linear(F.linear(x, down), up)
