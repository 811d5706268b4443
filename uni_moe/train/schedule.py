"""The learning rate at every step, as a pure function."""

from __future__ import annotations

import math


def cosine_with_warmup(step: int, *, steps: int, warmup_share: float) -> float:
    """Return the share of the peak rate at `step` (0-based): linear warm-up, then half a cosine.

    Source: the paper trains all phases with AdamW, a cosine and a warm-up share of 0.03.
    """
    warmup = math.ceil(steps * warmup_share)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * progress))
