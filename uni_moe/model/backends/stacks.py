"""A stack of matrices, one per expert, with its low-rank delta, and the gradients of all three.

Shapes
    E  experts    P  rows, ordered by expert    I  what a matrix reads    O  what it returns
    r  rank of the delta, filled up (see thin)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uni_moe.model.backends.thin import Thin


@dataclass(frozen=True)
class Stack:
    """y = x @ (weight + scale * up @ down) of one expert, without multiplying the delta out.

    `low_Pr` keeps x @ down for the way back, in float32.
    """

    thin: Thin
    scale: float
    weight_EOI: Tensor
    down_ErI: Tensor | None
    up_ErO: Tensor | None
    low_Pr: Tensor | None

    def tensors(self) -> list[Tensor | None]:
        """Return what autograd shall keep."""
        return [self.weight_EOI, self.down_ErI, self.up_ErO, self.low_Pr]

    def run(self, e: int, rows: slice, x: Tensor, out: Tensor) -> None:
        """Write expert e's rows."""
        torch.mm(x, self.weight_EOI[e].t(), out=out)
        if self.down_ErI is not None and self.up_ErO is not None and self.low_Pr is not None:
            low = self.low_Pr[rows]
            self.thin.read(x, self.down_ErI[e], 1.0, low)
            self.thin.add(low, self.up_ErO[e], self.scale, out)

    def back(self, e: int, d_y: Tensor, out: Tensor) -> Tensor | None:
        """Write the gradient of x; return that of x @ down."""
        torch.mm(d_y, self.weight_EOI[e], out=out)
        if self.down_ErI is None or self.up_ErO is None:
            return None
        d_low = d_y.new_empty(len(d_y), self.up_ErO.shape[1], dtype=torch.float32)
        self.thin.read(d_y, self.up_ErO[e], self.scale, d_low)
        self.thin.add(d_low, self.down_ErI[e], 1.0, out)
        return d_low


def low_rows(x: Tensor, down_ErI: Tensor | None) -> Tensor | None:
    """Return room for x @ down, (P, r)."""
    if down_ErI is None:
        return None
    return x.new_empty(len(x), down_ErI.shape[1], dtype=torch.float32)


class Gradients:
    """Room for a stack's gradients; a tensor that learns nothing has none.

    Experts without a visit have zeros.
    """

    def __init__(self, stack: Stack, learns: Sequence[bool], idle: Sequence[int]) -> None:
        self._stack = stack
        self.weight, self.down, self.up = (
            torch.empty_like(tensor) if needed and tensor is not None else None
            for tensor, needed in zip(stack.tensors(), learns, strict=False)
        )
        for room in (self.weight, self.down, self.up):
            for e in idle if room is not None else ():
                room[e].zero_()  # type: ignore[index] # not None, or there is no e

    def learn(self, e: int, rows: slice, x: Tensor, d_y: Tensor, d_low: Tensor | None) -> None:
        """Write what expert e learns from its rows."""
        if self.weight is not None:
            torch.mm(d_y.t(), x, out=self.weight[e])
        if self.down is not None and d_low is not None:
            self._stack.thin.learn(d_low, x, 1.0, self.down[e])
        if self.up is not None and self._stack.low_Pr is not None:
            low = self._stack.low_Pr[rows]
            self._stack.thin.learn(low, d_y, self._stack.scale, self.up[e])
