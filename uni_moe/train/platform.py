"""Machine choices that change bits: made once, before anything is computed, and recorded."""

from __future__ import annotations

import platform
from typing import Any

import torch

from uni_moe.config import Platform


def settle(choice: Platform) -> dict[str, Any]:
    """Fix threads and deterministic kernels for this process; return what was chosen.

    Two runs agree to the bit on one machine with one set of choices. Other hardware, another
    number of threads or another build of torch may give other bits.
    """
    torch.set_num_threads(choice.threads)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    return {
        "device": device().type,
        "threads": choice.threads,
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
    }


def device() -> torch.device:
    """Return the accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
