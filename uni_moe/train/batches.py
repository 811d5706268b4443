"""What a learner hands to the loop, and what the loop tells of a step.

A step is a list of draws that follows from seed, phase, blend and step alone. Rows, micro-batches
and ranks only say where a draw is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

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
class MicroBatch:
    """What a module is called with at once, made of so many draws.

    `count` is what its loss is summed over: loss-bearing tokens, 0 where nothing is learned.
    `positions` counts what goes through the language model, filling aside; `computed` counts the
    filling, too, and `attended` with what is filled for attention. `encoded_s` is how long encoders
    were at work to make it.
    """

    inputs: Any
    count: float
    draws: int
    seen: tuple[Seen, ...] = ()
    positions: int = 0
    computed: int = 0
    attended: int = 0
    encoded_s: float = 0.0


@dataclass(frozen=True)
class StepLoss:
    """The loss of a micro-batch.

    `total` is its sum over what `MicroBatch.count` counts, so that totals of micro-batches and
    ranks add up; `beside` is its share of what is added to their mean. `parts` splits the total:
    name -> (sum, count); `by_draw` too: (draws, 2), the sum and the tokens of every draw, in the
    order of `MicroBatch.seen`. `routing` tells what the sparse layers did, `auxiliary` its shares
    of the losses beside the next token's, by name and without their weights.
    """

    total: Tensor
    parts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    by_draw: Tensor | None = None
    routing: Mapping[int, RoutingSums] = field(default_factory=dict)
    auxiliary: Mapping[str, Tensor] = field(default_factory=dict)
    beside: Tensor | None = None

    def whole(self, count: float) -> Tensor:
        """Return the sum with what stands beside, for a step that counts so much."""
        return self.total if self.beside is None else self.total + self.beside * count


@dataclass(frozen=True)
class StepReport:
    """What one step did, over all ranks; `step` is counted from 1.

    `seen` holds (rank, draw) by slot, `by_draw` each draw's summed loss and loss-bearing tokens in
    the same order. `draws` counts them also where a learner does not name them. `positions` counts
    what went through the language model, filling aside; `computed` and `attended` count it, too, as
    in a MicroBatch. Of ranks the one tells that waited longest for data, whose encoders worked
    longest, or that holds most `memory`. `parts` are losses by the learner's own names, `auxiliary`
    those beside the next token's, without their weights.
    """

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float
    seen: tuple[tuple[int, Seen], ...]
    by_draw: tuple[tuple[float, int], ...]
    routing: Mapping[int, RoutingSums]
    took_s: float
    waited_s: float = 0.0
    encoded_s: float = 0.0
    memory: Mapping[str, float] = field(default_factory=dict)
    draws: int = 0
    positions: int = 0
    computed: int = 0
    attended: int = 0
    parts: Mapping[str, float] = field(default_factory=dict)
    auxiliary: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class LooksAhead(Protocol):
    """A module some of whose losses need to know the whole step before a part of it is learned."""

    def look_ahead(self, batches: Sequence[MicroBatch]) -> None:
        """Count a step, of which these are a rank's micro-batches. All ranks call it together."""


class Learner(Protocol):
    """Something that can be trained: a module, and batches as a pure function of the step."""

    @property
    def module(self) -> nn.Module:
        """What learns: called with a micro-batch's inputs, it returns a StepLoss."""

    def micro_batches(self, step: int, rank: int, ranks: int) -> list[MicroBatch]:
        """Return a rank's share of a step, whatever happened before; all ranks get equally many.

        A rank without a share gets micro-batches that count nothing and run all that learns.
        """

    def validate(self) -> dict[str, float]:
        """Return the validation loss by modality, the same on every rank."""


def whole_step(inputs: Any, draws: int) -> list[MicroBatch]:  # noqa: ANN401 - a learner's own type
    """Return a step that is computed at once and whose loss is a mean already."""
    return [MicroBatch(inputs, 1.0, draws)]
