"""Machine choices that change bits: made once, before anything is computed, and recorded."""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch.nn import functional as F

from uni_moe.config import Platform

# A fast route for float32 must agree with the plain one to this share of the largest value.
ROUTE_TOLERANCE = 1e-6


def settle(choice: Platform) -> dict[str, Any]:
    """Fix threads, kernels and the matrix route for this process; return what was chosen.

    Two runs agree to the bit on one machine with one set of choices. Other hardware, another
    number of threads or another build of torch may give other bits. Nothing here is chosen by a
    clock, so a machine always chooses the same.
    """
    torch.set_num_threads(choice.threads)
    matmul = matmul_route()
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return {
        "device": device().type,
        "threads": choice.threads,
        "matmul": matmul,
        "attention": attention_route(matmul),
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
    }


def device() -> torch.device:
    """Return the accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def attention_route(matmul: str) -> str:
    """Take plain attention on a CPU whose products go through oneDNN, else torch's own choice.

    On short sequences the fused kernel's backward on a CPU takes half of a step; plain attention
    gains from the faster products (1.7 times as fast a step, measured on the playground).
    """
    plain = device().type == "cpu" and matmul == "onednn"
    torch.backends.cuda.enable_flash_sdp(not plain)  # the switch holds for the CPU, too
    return "plain" if plain else "fused"


def matmul_route() -> str:
    """Send float32 products through oneDNN where it computes them in full precision.

    torch's default route is two to three times slower on AMD. The switch that takes oneDNN may
    round to bfloat16 on processors with such units, so it stays only where a probe finds it exact.
    """
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined] # torch types lack it
    before = matmul.fp32_precision
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 384, generator=generator)
    weight = torch.randn(256, 384, generator=generator)
    matmul.fp32_precision = "ieee"
    plain = F.linear(x.double(), weight.double())
    matmul.fp32_precision = "bf16"
    error = float((F.linear(x, weight) - plain).abs().max() / plain.abs().max())
    if error <= ROUTE_TOLERANCE:
        return "onednn"
    matmul.fp32_precision = before
    return "default"
