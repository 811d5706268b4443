"""What a network needs while it learns: its sizes counted, its memory added up."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from uni_moe.model.config import UniMoeConfig
from uni_moe.train.activations import Load, Way, kept_by
from uni_moe.train.learning import learning_of
from uni_moe.train.memory import Memory, Ranks, memory_of


def needs_of(  # noqa: PLR0913 - what a training is made of
    config: UniMoeConfig,
    learns: Collection[str],
    load: Load,
    ranks: Ranks,
    way: Way,
    *,
    rank: int | None,
    layers: Collection[int],
    batches: int = 1,
) -> Memory:
    """Return the memory of one rank.

    Args:
        config: the network's configuration.
        learns: names of its parts that learn.
        load: a micro-batch.
        ranks: how the work is spread.
        way: the routes it takes; the rest of it follows from `ranks`.
        rank: of the low-rank adapters; None without any.
        layers: layers whose feed-forwards get adapters.
        batches: micro-batches of a step on each rank.
    """
    learning = learning_of(config, learns, rank=rank, layers=layers)
    way = replace(
        way,
        number=ranks.number,
        checkpointing=ranks.activation_checkpointing,
        spread=ranks.expert_parallel,
    )
    kept = kept_by(learning.network, load, way)
    return memory_of(learning.weights, kept, ranks, batches=batches)
