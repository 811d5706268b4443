"""The decoder's norm: LLaMA's own on a CPU, and one kernel instead of seven on an accelerator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaRMSNorm


class RMSNorm(LlamaRMSNorm):  # type: ignore[misc] # transformers is untyped here
    """Divides every position, (..., D), by the root of its mean square, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x in its own precision, normalized and weighted."""
        if x.device.type == "cpu":
            y: Tensor = super().forward(x)
            return y
        with torch.autocast(x.device.type, enabled=False):  # which would make the result float32
            weight = self.weight.to(x.dtype)
            return F.rms_norm(x, (x.shape[-1],), weight, self.variance_epsilon)
