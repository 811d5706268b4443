"""The backend for a layer: what the process chose at its start, and how many experts there are."""

from __future__ import annotations

import functools

from torch import Tensor

from uni_moe.model.backends.base import Backend, Weights
from uni_moe.model.backends.elementwise import NativeElementwise, TorchElementwise
from uni_moe.model.backends.few import Few, are_few
from uni_moe.model.backends.fused import Fused
from uni_moe.model.backends.grouped import ALIGNED, grouped
from uni_moe.model.backends.reference import reference
from uni_moe.native import Native, native
from uni_moe.routes import Routes

# Beyond, the loop's own cost per expert outweighs what it saves (measured with E = 64).
FEW_EXPERTS = 16
# Products of a matrix of every expert with its rows: with fewer, an accelerator waits for the loop
# (measured on an H200: 1.9e11 gains, 0.9e11 loses).
ENOUGH_WORK = 1.5e11


def backend_of(routes: Routes, expert_TK: Tensor, weights: Weights) -> Backend:
    """Return how these experts run on these visits.

    The fused way is for few experts, and on an accelerator for much work; a grouped product takes
    aligned rows alone.
    """
    experts, width, inner = weights.down_EDI.shape
    on_cpu = weights.down_EDI.device.type == "cpu"
    if routes.experts == "fused" and on_cpu and are_few(expert_TK, weights):
        return _few(routes.elementwise)
    is_enough = on_cpu or expert_TK.numel() * width * inner >= ENOUGH_WORK
    if routes.experts == "fused" and experts <= FEW_EXPERTS and is_enough:
        return _fused(routes.elementwise, weights.down_EDI.device.type)
    is_aligned = width % ALIGNED == 0 and inner % ALIGNED == 0
    return reference if routes.experts == "reference" or not is_aligned else grouped


@functools.cache
def _fused(elementwise: str, device: str) -> Fused:
    if elementwise == "torch":
        return Fused(TorchElementwise())
    if device == "cpu":
        return Fused(NativeElementwise(_native()))
    from uni_moe.model.backends.kernels import KernelElementwise  # Triton is there alone

    return Fused(KernelElementwise())


@functools.cache
def _few(elementwise: str) -> Backend:
    """Rounding rows up does not pay for few tokens: without compiled code the plain way is best."""
    return reference if elementwise == "torch" else Few(_native())


def _native() -> Native:
    built = native()
    assert built is not None, "a route was chosen that this machine does not have"
    return built
