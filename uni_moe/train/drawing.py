"""The steps of a phase over its conversations: for the training, and for who checks its ledger."""

from __future__ import annotations

from uni_moe.config import Phase
from uni_moe.data.order import Order
from uni_moe.data.steps import Steps
from uni_moe.errors import DataError, bullets
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

    Raises:
        DataError: steps are cut by positions, and nobody knows how long some were that went.
    """
    if phase.batch_positions is not None:
        _check_measured(holes)

    def length(modality: str, key: str) -> int:
        if (sample := train[modality].get(key)) is not None:
            return lengths.of(sample)
        extent = holes[modality][key]
        assert extent is not None, f"{key} was not measured"
        return lengths.of_gone(extent)

    order = Order(
        {modality: list(rows) for modality, rows in train.items()},
        phase.blend,
        seed,
        phase=name,
        sources=phase.sources,
        holes=holes,
    )
    return Steps(order, length, batch_size=phase.batch_size, batch_positions=phase.batch_positions)


def _check_measured(holes: Holes) -> None:
    unknown = sorted(key for gone in holes.values() for key, extent in gone.items() if not extent)
    if unknown:
        raise DataError(
            f"Nobody knows how long {len(unknown)} conversations were that went:{bullets(unknown)}",
            cause="steps that are cut by `batch_positions` keep every other draw in its place only "
            "where that is known; these were refused by the contract, or taken out before there "
            "was a tokenizer here.",
            remedy="mend what is refused, or take it out (`uni-moe remove KEY` measures what can "
            "be measured); or let the phase draw `batch_size` conversations a step.",
        )
