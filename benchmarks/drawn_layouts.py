"""Layouts of a step on a few ranks, drawn from a seed: who meets which media in which row. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from uni_moe.model.config import SLOT_KINDS

SPREADS = {"ZeRO 0": 5, "ZeRO 1": 1, "ZeRO 2": 2, "ZeRO 3": 1, "experts": 3}
"""How weights, moments and experts are spread, and how often that is drawn."""


@dataclass(frozen=True)
class Talk:
    """One conversation: its media, its words, and whether it has an answer to learn from."""

    media: tuple[str, ...]
    words: int
    answered: bool


@dataclass(frozen=True)
class StepLayout:
    """Where conversations are computed: rank -> micro-batch -> row -> conversation."""

    seed: int
    spread: str
    packed: bool
    ranks: tuple[tuple[tuple[tuple[Talk, ...], ...], ...], ...]

    @property
    def talks(self) -> list[Talk]:
        """All of them."""
        return [one for rank in self.ranks for batch in rank for row in batch for one in row]


def draw(seed: int, ranks: int = 2) -> StepLayout:
    """Draw a layout of so many ranks: a pure function of both."""
    dice = random.Random(seed)
    (spread,) = dice.choices(list(SPREADS), list(SPREADS.values()))
    packed, batches = dice.random() < 0.7, dice.randint(1, 3)
    places = []
    for _ in range(ranks):
        kinds = dice.sample(SLOT_KINDS, dice.randint(0, len(SLOT_KINDS)))
        rows = (0,) if dice.random() < 0.15 else (0, 1, 1, 2)
        places.append(
            tuple(_batch(dice, kinds, dice.choice(rows), packed=packed) for _ in range(batches))
        )
    return StepLayout(seed, spread, packed, tuple(places))


def _batch(
    dice: random.Random, kinds: Sequence[str], rows: int, *, packed: bool
) -> tuple[tuple[Talk, ...], ...]:
    return tuple(
        tuple(_talk(dice, kinds) for _ in range(dice.randint(1, 3) if packed else 1))
        for _ in range(rows)
    )


def _talk(dice: random.Random, kinds: Sequence[str]) -> Talk:
    media = tuple(dice.choices(kinds, k=dice.choice((0, 1, 1, 2)))) if kinds else ()
    return Talk(media, dice.randint(1, 9), dice.random() < 0.85)


def variety(layouts: Iterable[StepLayout]) -> dict[str, int]:
    """Count what the layouts hold."""
    counts: Counter[str] = Counter()
    for layout in layouts:
        kinds = [
            {k for b in rank for row in b for talk in row for k in talk.media}
            for rank in layout.ranks
        ]
        counts["a_rank_without_a_modality_of_another"] += any(one != kinds[0] for one in kinds)
        counts["text_alone"] += not any(kinds)
        counts["a_rank_without_a_row"] += any(not any(rank) for rank in layout.ranks)
        counts["nothing_to_learn"] += not any(talk.answered for talk in layout.talks)
    return dict(counts)
