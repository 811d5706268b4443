"""Numbers of two sizes: what is frozen may be bfloat16, what learns is float32 always.

An update is mostly smaller than what bfloat16 tells apart from a weight, so AdamW's weights and
moments are float32, on every rank and in every training state. Products are computed in bfloat16 by
torch's autocast, which keeps sums that matter (softmaxes, losses) in float32. The foundation's tiny
parts are trained in float32, whatever params say.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

Precision = Literal["float32", "bfloat16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def hold(module: nn.Module, precision: Precision) -> None:
    """Hold what learns in float32 and everything else in a precision. Buffers stay as they are."""
    for parameter in module.parameters():
        dtype = torch.float32 if parameter.requires_grad else DTYPES[precision]
        parameter.data = parameter.data.to(dtype)


def finish(module: nn.Module, precision: Precision) -> None:
    """Hold everything in a precision: nothing learns any more."""
    module.requires_grad_(requires_grad=False)
    hold(module, precision)


def computing(precision: Precision, place: torch.device) -> torch.autocast:
    """Return the context in which products are computed in a precision."""
    return torch.autocast(place.type, DTYPES["bfloat16"], enabled=precision == "bfloat16")
