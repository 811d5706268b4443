"""What stands between the fused experts' products: SwiGLU with its share, and the sum of visits.

Two ways with one interface: torch's operations, or our compiled code, which reads and writes every
number once. bfloat16 is computed in float32 by both.

Shapes
    R  rows    I  inner width    T  tokens    K  experts each token visits
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from uni_moe.model.backends.thin import NativeThin, Thin, TorchThin
from uni_moe.native import Native, threads


class Elementwise(Protocol):
    """Three operations that write into what they are given; `thin` runs low-rank deltas alike."""

    thin: Thin

    def forward(self, gate_up: Tensor, share: Tensor, out: Tensor) -> None:
        """Write silu(gate) * up * share into out, (R, I)."""

    def backward(  # noqa: PLR0913 - what a backward pass reads and writes
        self,
        gate_up: Tensor,
        share: Tensor,
        d_out: Tensor,
        out: Tensor,
        d_gate_up: Tensor,
        d_share: Tensor,
    ) -> None:
        """Write the gradients, and once more what the forward pass wrote into out."""

    def combine(self, y: Tensor, place_TK: Tensor, out: Tensor) -> None:
        """Write the sum of the rows place_TK of y into out, (T, D)."""


class TorchElementwise:
    """By torch's operations."""

    def __init__(self) -> None:
        self.thin: Thin = TorchThin()

    def forward(self, gate_up: Tensor, share: Tensor, out: Tensor) -> None:
        """See Elementwise."""
        gate, up = gate_up.float().chunk(2, dim=-1)
        out.copy_(torch.nn.functional.silu(gate) * up * share[:, None])

    def backward(  # noqa: PLR0913 - see Elementwise
        self,
        gate_up: Tensor,
        share: Tensor,
        d_out: Tensor,
        out: Tensor,
        d_gate_up: Tensor,
        d_share: Tensor,
    ) -> None:
        """See Elementwise."""
        gate, up = gate_up.float().chunk(2, dim=-1)
        sigmoid, d = gate.sigmoid(), d_out.float()
        silu = gate * sigmoid
        torch.sum(d * silu * up, dim=-1, out=d_share)
        out.copy_(silu * up * share[:, None])
        d = d * share[:, None]
        d_gate, d_up = d_gate_up.chunk(2, dim=-1)
        d_gate.copy_(d * up * (sigmoid + silu * (1 - sigmoid)))
        d_up.copy_(d * silu)

    def combine(self, y: Tensor, place_TK: Tensor, out: Tensor) -> None:
        """See Elementwise."""
        torch.sum(y[place_TK.flatten()].unflatten(0, place_TK.shape), dim=1, out=out)


class NativeElementwise:
    """By our compiled code, on the CPU, in float32 or bfloat16, on contiguous rows."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self.thin: Thin = NativeThin(native)

    def forward(self, gate_up: Tensor, share: Tensor, out: Tensor) -> None:
        """See Elementwise."""
        self._call("swiglu_forward", out, (gate_up, share, out), out.shape)

    def backward(  # noqa: PLR0913 - see Elementwise
        self,
        gate_up: Tensor,
        share: Tensor,
        d_out: Tensor,
        out: Tensor,
        d_gate_up: Tensor,
        d_share: Tensor,
    ) -> None:
        """See Elementwise."""
        tensors = (gate_up, share, d_out, out, d_gate_up, d_share)
        self._call("swiglu_backward", out, tensors, out.shape)

    def combine(self, y: Tensor, place_TK: Tensor, out: Tensor) -> None:
        """See Elementwise."""
        self._call("combine", out, (y, place_TK, out), (*place_TK.shape, out.shape[1]))

    def _call(
        self, name: str, like: Tensor, tensors: tuple[Tensor, ...], sizes: tuple[int, ...]
    ) -> None:
        self._native.call(name, like.dtype, tensors, sizes, threads())
