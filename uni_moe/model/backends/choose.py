"""The backend for a layer: what the process chose at its start, and how many experts there are."""

from __future__ import annotations

import functools
from math import ceil

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
    device = weights.down_EDI.device.type
    if routes.experts == "fused" and device == "cpu" and are_few(expert_TK, weights):
        return _few(routes.elementwise)
    way = way_of_experts(
        routes.experts, experts, expert_TK.numel(), width, inner, on_cpu=device == "cpu"
    )
    if way == "fused":
        return _fused(routes.elementwise, device)
    return grouped if way == "grouped" else reference


def most_grouped(experts: int, width: int, inner: int) -> int | None:
    """Return how many visits at most so few experts run by a grouped product on an accelerator.

    None: any number, because there are many of them.
    """
    if experts > FEW_EXPERTS:
        return None
    return max(0, ceil(ENOUGH_WORK / (width * inner)) - 1)


def way_of_experts(  # noqa: PLR0913 - what decides
    route: str, experts: int, visits: int, width: int, inner: int, *, on_cpu: bool
) -> str:
    """Return how so many experts run a training step's visits where a route was chosen."""
    is_enough = on_cpu or visits * width * inner >= ENOUGH_WORK
    if route == "fused" and experts <= FEW_EXPERTS and is_enough:
        return "fused"
    is_aligned = width % ALIGNED == 0 and inner % ALIGNED == 0
    return "reference" if route == "reference" or not is_aligned else "grouped"


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
