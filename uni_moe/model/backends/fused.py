"""The fast way on a CPU for few experts: one pass forward, one back, every product in its place.

What it saves beside a loop under autograd: copies of the stacks' slices, gradient buffers that are
added up, a pass for the routing's share (it is a part of SwiGLU) and SwiGLU's result, which is
computed again instead of kept. What one expert needs in between lies in room that the next one
takes over. Rows are rounded up, so that oneDNN, which keeps a plan per shape, meets few shapes.

Shapes
    T  tokens    K  experts each token visits    E  experts    P  rows, ordered by expert
    N  rows of the busiest expert    D  model width    I  inner width    J  2 I, gate first
    r  rank of a low-rank delta
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uni_moe.instructions import has_matrix_units
from uni_moe.model.backends.base import LowRank, Weights, visits_of
from uni_moe.model.backends.elementwise import Elementwise
from uni_moe.model.backends.plan import Plan
from uni_moe.model.backends.stacks import Gradients, Stack, low_rows
from uni_moe.model.backends.thin import filled

# Measured: 8 beats 1 (a new shape in nearly every step) and 16 and more (idle rows).
PAD_ROWS = 8
# With matrix units a new shape costs as much as six products of one that is known (measured on a
# Xeon, 256 to 1,024 rows), so there should be fewer of them.
TILED_PAD_ROWS = 32


@dataclass(frozen=True)
class Fused:
    """A backend; `elementwise` computes what stands between the products."""

    elementwise: Elementwise

    def __call__(
        self, x_TD: Tensor, share_TK: Tensor, expert_TK: Tensor, weights: Weights
    ) -> Tensor:
        """Run every expert on its visits."""
        first, second = weights.gate_up_delta, weights.down_delta
        visits = visits_of(expert_TK, len(weights.down_EDI))
        out: Tensor = _Experts.apply(  # type: ignore[no-untyped-call] # torch types lack it
            x_TD,
            share_TK,
            weights.gate_up_EJD,
            *_factors(first),
            weights.down_EDI,
            *_factors(second),
            Plan.of(visits, pad_rows(x_TD.dtype, x_TD.device.type)),
            self.elementwise,
            (first.scale if first else 0.0, second.scale if second else 0.0),
        )
        return out


def pad_rows(dtype: torch.dtype, device: str) -> int:
    """Return what the rows of an expert are rounded up to a multiple of."""
    is_tiled = dtype == torch.bfloat16 and device == "cpu" and has_matrix_units()
    return TILED_PAD_ROWS if is_tiled else PAD_ROWS


def _factors(delta: LowRank | None) -> tuple[Tensor | None, Tensor | None]:
    if delta is None:
        return None, None
    return filled(delta.down_ErI), filled(delta.up_EOr.transpose(1, 2))


class _Experts(torch.autograd.Function):
    """Forward and backward by hand. A gradient that nobody asks for is not computed."""

    @staticmethod
    def forward(  # noqa: PLR0913 - autograd passes tensors one by one
        ctx: Any,  # noqa: ANN401
        x_TD: Tensor,
        share_TK: Tensor,
        gate_up_EJD: Tensor,
        down1_ErD: Tensor | None,
        up1_ErJ: Tensor | None,
        down_EDI: Tensor,
        down2_ErI: Tensor | None,
        up2_ErD: Tensor | None,
        plan: Plan,
        elementwise: Elementwise,
        scales: tuple[float, float],
    ) -> Tensor:
        x_PD, share_P = x_TD.index_select(0, plan.token_P), plan.shares(share_TK)
        gate_up_PJ = x_TD.new_empty(len(x_PD), gate_up_EJD.shape[1])
        act_NI, y_PD = x_TD.new_empty(plan.most, down_EDI.shape[2]), torch.empty_like(x_PD)
        low1_Pr, low2_Pr = low_rows(x_PD, down1_ErD), low_rows(x_PD, down2_ErI)
        enter = Stack(elementwise.thin, scales[0], gate_up_EJD, down1_ErD, up1_ErJ, low1_Pr)
        leave = Stack(elementwise.thin, scales[1], down_EDI, down2_ErI, up2_ErD, low2_Pr)
        for e, rows in plan.busy():
            enter.run(e, rows, x_PD[rows], gate_up_PJ[rows])
            act = act_NI[: rows.stop - rows.start]
            elementwise.forward(gate_up_PJ[rows], share_P[rows], act)
            leave.run(e, rows, act, y_PD[rows])
        y_TD = torch.empty_like(x_TD, memory_format=torch.contiguous_format)
        elementwise.combine(y_PD, plan.place_TK, y_TD)
        ctx.save_for_backward(x_TD, share_P, gate_up_PJ, *enter.tensors(), *leave.tensors())
        ctx.plan, ctx.elementwise, ctx.scales = plan, elementwise, scales
        ctx.share_dtype = share_TK.dtype
        return y_TD

    @staticmethod
    def backward(ctx: Any, d_y_TD: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        plan, elementwise, learns = ctx.plan, ctx.elementwise, ctx.needs_input_grad
        x_TD, share_P, gate_up_PJ, *kept = ctx.saved_tensors
        enter, leave = (
            Stack(elementwise.thin, scale, *tensors)
            for scale, tensors in zip(ctx.scales, (kept[:4], kept[4:]), strict=True)
        )
        idle = [e for e, rows in enumerate(plan.rows) if rows.stop == rows.start]
        grads_in, grads_out = (
            Gradients(enter, learns[2:5], idle),
            Gradients(leave, learns[5:8], idle),
        )
        x_PD, d_y_PD = x_TD.index_select(0, plan.token_P), d_y_TD.index_select(0, plan.token_P)
        act_NI = x_PD.new_empty(plan.most, leave.weight_EOI.shape[2])
        d_act_NI = torch.empty_like(act_NI)
        d_gate_up_NJ = x_PD.new_empty(plan.most, gate_up_PJ.shape[1])
        d_x_PD, d_share_P = torch.empty_like(x_PD), torch.empty_like(share_P)
        for e, rows in plan.busy():
            n, x, d_y = rows.stop - rows.start, x_PD[rows], d_y_PD[rows]
            act, d_act, d_gate_up = act_NI[:n], d_act_NI[:n], d_gate_up_NJ[:n]
            d_low = leave.back(e, d_y, d_act)
            elementwise.backward(
                gate_up_PJ[rows], share_P[rows], d_act, act, d_gate_up, d_share_P[rows]
            )
            grads_out.learn(e, rows, act, d_y, d_low)
            d_low = enter.back(e, d_gate_up, d_x_PD[rows])
            grads_in.learn(e, rows, x, d_gate_up, d_low)
        d_x_TD = torch.empty_like(x_TD, memory_format=torch.contiguous_format)
        elementwise.combine(d_x_PD, plan.place_TK, d_x_TD)
        d_share_TK = d_share_P[plan.place_TK].to(ctx.share_dtype)
        ours = (grads_in.weight, grads_in.down, grads_in.up)
        theirs = (grads_out.weight, grads_out.down, grads_out.up)
        return (d_x_TD, d_share_TK, *ours, *theirs, None, None, None)
