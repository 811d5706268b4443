"""What stands between fused experts' products, as kernels of an accelerator.

Every number is read and written once. bfloat16 is computed in float32, sums of a row in one order,
so one machine gives the same bits again. Triton comes with torch where there is an accelerator;
this file is imported there alone.

Shapes
    R  rows    I  inner width    J  2 I, gate first    T  tokens    K  experts each token visits
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from uni_moe.model.backends.thin import Thin, TorchThin

_BLOCK = 1024


class KernelElementwise:
    """By kernels, on an accelerator, on contiguous rows."""

    def __init__(self) -> None:
        self.thin: Thin = TorchThin()

    def forward(self, gate_up: Tensor, share: Tensor, out: Tensor) -> None:
        """See Elementwise."""
        rows, inner = out.shape
        if rows:
            grid = (rows, triton.cdiv(inner, _BLOCK))
            _forward[grid](gate_up, share, out, INNER=inner, BLOCK=_BLOCK)

    def backward(
        self,
        gate_up: Tensor,
        share: Tensor,
        d_out: Tensor,
        out: Tensor,
        d_gate_up: Tensor,
        d_share: Tensor,
    ) -> None:
        """See Elementwise."""
        rows, inner = out.shape
        if rows:
            _backward[(rows,)](
                gate_up, share, d_out, out, d_gate_up, d_share, INNER=inner, BLOCK=_BLOCK
            )

    def combine(self, y: Tensor, place_TK: Tensor, out: Tensor) -> None:
        """See Elementwise."""
        (tokens, top_k), width = place_TK.shape, out.shape[1]
        if tokens:
            grid = (tokens, triton.cdiv(width, _BLOCK))
            _combine[grid](y, place_TK, out, WIDTH=width, TOP_K=top_k, BLOCK=_BLOCK)


@triton.jit
def _forward(gate_up, share, out, INNER: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = at < INNER
    gate = tl.load(gate_up + row * 2 * INNER + at, there, 0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * INNER + INNER + at, there, 0.0).to(tl.float32)
    y = gate * tl.sigmoid(gate) * up * tl.load(share + row)
    tl.store(out + row * INNER + at, y, there)


@triton.jit
def _backward(
    gate_up,
    share,
    d_out,
    out,
    d_gate_up,
    d_share,
    INNER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    part = tl.load(share + row)
    sums = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, INNER, BLOCK):
        at = start + tl.arange(0, BLOCK)
        there = at < INNER
        gate = tl.load(gate_up + row * 2 * INNER + at, there, 0.0).to(tl.float32)
        up = tl.load(gate_up + row * 2 * INNER + INNER + at, there, 0.0).to(tl.float32)
        d = tl.load(d_out + row * INNER + at, there, 0.0).to(tl.float32)
        sigmoid = tl.sigmoid(gate)
        silu = gate * sigmoid
        sums += d * silu * up
        tl.store(out + row * INNER + at, silu * up * part, there)
        d = d * part
        d_gate = d * up * (sigmoid + silu * (1 - sigmoid))
        tl.store(d_gate_up + row * 2 * INNER + at, d_gate, there)
        tl.store(d_gate_up + row * 2 * INNER + INNER + at, d * silu, there)
    tl.store(d_share + row, tl.sum(sums, 0))


@triton.jit
def _combine(y, place, out, WIDTH: tl.constexpr, TOP_K: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = at < WIDTH
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(TOP_K):
        row = tl.load(place + token * TOP_K + k)
        total += tl.load(y + row * WIDTH + at, there, 0.0).to(tl.float32)
    tl.store(out + token * WIDTH + at, total, there)
