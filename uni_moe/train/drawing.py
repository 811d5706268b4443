"""The steps of a phase over its conversations: for the training, and for who checks its ledger."""

from __future__ import annotations

from uni_moe.config import Phase
from uni_moe.data.order import Order
from uni_moe.data.steps import Steps
from uni_moe.lengths import Lengths
from uni_moe.train.conversations import Conversations, Holes


def steps_of(  # noqa: PLR0913 - what a phase's steps follow from
    phase: Phase, *, name: str, seed: int, train: Conversations, holes: Holes, lengths: Lengths
) -> Steps:
    """Return the steps of a phase.

    Args:
        phase: its blend, the weights of its sources, and where a step ends.
        name: the stage's name; it shuffles all.
        seed: shuffles all, too.
        train: the conversations that may be drawn.
        holes: those that went.
        lengths: how long they are, where steps are cut by positions.
    """

    def length(modality: str, key: str) -> int:
        sample = train[modality].get(key)
        return holes[modality][key] if sample is None else lengths.of(sample)

    order = Order(
        {modality: list(rows) for modality, rows in train.items()},
        phase.blend,
        seed,
        phase=name,
        sources=phase.sources,
        holes=holes,
    )
    return Steps(order, length, batch_size=phase.batch_size, batch_positions=phase.batch_positions)
