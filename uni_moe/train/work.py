"""How much a step computes and how much a device could: both by estimate.

The utilization that follows (MFU) counts the language model alone: attention's products of
positions, connectors, encoders and recomputed activations are left out, so it is rather too low.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from uni_moe.model.moe import SparseFeedForward
from uni_moe.train.precision import DTYPES, Precision

_SIDE, _TIMES = 768, 3  # of the product that measures a processor
_HEAD, _EMBEDDING = "lm_head.", "embed_tokens."
# Dense peaks in FLOP/s, from NVIDIA's data sheets: of float32 without tensor cores, of bfloat16 on
# them. The first name that a device's name holds counts.
_PEAKS: tuple[tuple[str, Mapping[Precision, float]], ...] = (
    ("H200 NVL", {"float32": 60e12, "bfloat16": 835.5e12}),
    ("H200", {"float32": 67e12, "bfloat16": 989e12}),
    ("H100 PCIe", {"float32": 51e12, "bfloat16": 756.5e12}),
    ("H100 NVL", {"float32": 60e12, "bfloat16": 835.5e12}),
    ("H100", {"float32": 67e12, "bfloat16": 989e12}),
    ("A100", {"float32": 19.5e12, "bfloat16": 312e12}),
    ("L40S", {"float32": 91.6e12, "bfloat16": 362e12}),
    ("L4", {"float32": 30.3e12, "bfloat16": 121e12}),
)


@dataclass(frozen=True)
class Work:
    """Floating point operations of a training step, for each position and each learned label."""

    flops_per_position: float
    flops_per_label: float

    def of(self, positions: int, labels: int) -> float:
        """Return the operations of a step."""
        return positions * self.flops_per_position + labels * self.flops_per_label


def work_of(model: nn.Module) -> Work:
    """Estimate what one position costs: 2 per touched weight forward, 2 back, 2 if it learns.

    A weight is touched when a position passes it: of packed experts only as many as it visits. The
    head runs on labels alone; an embedding is looked up.
    """
    visited = _visited_shares(model)
    position = label = 0.0
    for name, parameter in model.named_parameters():
        if "language_model." not in name or _EMBEDDING in name:
            continue
        share = next((s for prefix, s in visited.items() if name.startswith(prefix)), 1.0)
        flops = parameter.numel() * share * (6 if parameter.requires_grad else 4)
        if _HEAD in name:
            label += flops
        else:
            position += flops
    return Work(position, label)


def peak_flops(device_name: str, precision: Precision) -> float | None:
    """Return what a device can do in a second, None where it is not known."""
    return next((peak[precision] for name, peak in _PEAKS if name in device_name), None)


def device_peak(precision: Precision) -> float | None:
    """Return what this process's device can do in a second; of a processor, what it does now."""
    if not torch.cuda.is_available():
        return measured_flops(precision)
    return peak_flops(torch.cuda.get_device_name(), precision)


def measured_flops(precision: Precision) -> float:
    """Return the operations in a second of a product on this processor, measured in some 0.05 s.

    It draws no random number: a training's are its own.
    """
    x = torch.ones(_SIDE, _SIDE, dtype=DTYPES[precision])
    x @ x
    took = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        x @ x
        took.append(time.perf_counter() - began)
    return 2 * _SIDE**3 / min(took)


def _visited_shares(model: nn.Module) -> dict[str, float]:
    """Return, for the names of each layer's experts, which share of them one position visits."""
    return {
        f"{name}.experts.": layer.router.top_k / len(layer.router.weight)
        for name, layer in model.named_modules()
        if isinstance(layer, SparseFeedForward)
    }
