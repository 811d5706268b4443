"""What a learner hands to the loop, and what the loop tells of a step.

A step is a list of draws that follows from seed, phase, blend and step alone. Rows, micro-batches
and ranks only say where a draw is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from uni_moe.model.routing_sums import RoutingSums


@dataclass(frozen=True)
class Seen:
    """One draw of a step as it was computed.

    `slot` is its place in the step's global batch, `tokens` how many of its tokens bear loss,
    `truncated` how many positions were cut away.
    """

    slot: int
    key: str
    sample: str
    modality: str
    source: str
    tokens: int
    truncated: int


@dataclass(frozen=True)
class StepReport:
    """What one step did, over all ranks; `step` is counted from 1.

    `seen` holds (rank, draw) by slot, `by_draw` each draw's summed loss and loss-bearing tokens in
    the same order. `positions` counts what went through the language model, filling aside.
    `auxiliary` maps a loss beside the next token's to its value, without its weight.
    """

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float
    seen: tuple[tuple[int, Seen], ...]
    by_draw: tuple[tuple[float, int], ...]
    routing: Mapping[int, RoutingSums]
    waited_s: float
    took_s: float
    auxiliary: Mapping[str, float] = field(default_factory=dict)
    positions: int | None = None
