"""Products with the thin factors of low-rank deltas, beside the large products of fused experts.

Two ways with one interface: torch's products, or our compiled code. A library packs what it
multiplies and keeps a plan per number of rows, of which every step brings new ones; for products as
thin as these that costs more than they do (measured: half of all, while routing varies).

Shapes
    R  rows    n  numbers in a row    r  rank, a multiple of RANKS
"""

from __future__ import annotations

import ctypes
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from uni_moe.native import Native, threads

RANKS = 4  # what compiled code takes at once


class Thin(Protocol):
    """Three products that write into what they are given; `low` is (R, r) in float32."""

    def read(self, x: Tensor, factor: Tensor, scale: float, low: Tensor) -> None:
        """Write scale * x @ factor.T into low; x is (R, n), factor (r, n)."""

    def add(self, low: Tensor, factor: Tensor, scale: float, y: Tensor) -> None:
        """Add scale * low @ factor to y, (R, n)."""

    def learn(self, low: Tensor, x: Tensor, scale: float, factor: Tensor) -> None:
        """Write scale * low.T @ x into factor."""


def filled(factor_ErN: Tensor) -> Tensor:
    """Return a factor in rows of its own, its rank filled with zeros to a multiple of RANKS."""
    missing = -factor_ErN.shape[1] % RANKS
    return F.pad(factor_ErN, (0, 0, 0, missing)) if missing else factor_ErN.contiguous()


class TorchThin:
    """By torch's products, in the precision of the rows."""

    def read(self, x: Tensor, factor: Tensor, scale: float, low: Tensor) -> None:
        """See Thin."""
        product = torch.mm(x, factor.t())
        low.copy_(product if scale == 1.0 else product.mul_(scale))

    def add(self, low: Tensor, factor: Tensor, scale: float, y: Tensor) -> None:
        """See Thin."""
        y.addmm_(low.to(y.dtype), factor, alpha=scale)

    def learn(self, low: Tensor, x: Tensor, scale: float, factor: Tensor) -> None:
        """See Thin."""
        torch.mm(low.to(x.dtype).t(), x, out=factor)
        if scale != 1.0:
            factor.mul_(scale)


class NativeThin:
    """By our compiled code, on the CPU, in float32 or bfloat16, on contiguous rows."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def read(self, x: Tensor, factor: Tensor, scale: float, low: Tensor) -> None:
        """See Thin."""
        self._call("thin_read", x, (x, factor, low), len(factor), scale)

    def add(self, low: Tensor, factor: Tensor, scale: float, y: Tensor) -> None:
        """See Thin."""
        self._call("thin_add", y, (low, factor, y), len(factor), scale)

    def learn(self, low: Tensor, x: Tensor, scale: float, factor: Tensor) -> None:
        """See Thin."""
        self._call("thin_learn", x, (low, x, factor), len(factor), scale)

    def _call(
        self, name: str, like: Tensor, tensors: tuple[Tensor, ...], rank: int, scale: float
    ) -> None:
        sizes = (*like.shape, rank)
        self._native.call(name, like.dtype, tensors, sizes, ctypes.c_float(scale), threads())
