"""Which instructions this process computes with, as far as they decide about bits and speed."""

from __future__ import annotations

import torch


def instructions() -> str:
    """Return the widest vectors that torch uses here, and whether there are matrix units beside."""
    vectors = torch.backends.cpu.get_cpu_capability()
    return f"{vectors} AMX" if has_matrix_units() else vectors


def has_matrix_units() -> bool:
    """Return whether products in bfloat16 run on tiles: Intel's AMX."""
    return bool(torch.cpu._is_amx_tile_supported())  # noqa: SLF001 - older torch tells nowhere else
