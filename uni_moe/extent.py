"""How many positions a conversation takes, where its media stand, and what is left when it is cut.

Counts only: nothing here tells what was said or shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Extent:
    """Positions of a conversation; `media` holds (first position, positions) of each medium."""

    positions: int
    media: tuple[tuple[int, int], ...] = ()

    def cut(self, most: int) -> tuple[int, int]:
        """Return how many positions and how many media stay when at most so many positions do.

        A medium that does not fit whole is left out, with everything behind it.
        """
        for number, (first, count) in enumerate(self.media):
            if first + count > most:
                return min(most, first), number
        return min(most, self.positions), len(self.media)


def extent_of(ids: Sequence[int], rows: Sequence[int], first_slot: int) -> Extent:
    """Return the extent of a tokenized conversation.

    Args:
        ids: its tokens; those from `first_slot` on stand for a row of a medium.
        rows: for every medium in order, the positions it takes.
        first_slot: the first id that is no token.
    """
    slots = [at for at, one in enumerate(ids) if one >= first_slot]
    media, begun = [], 0
    for count in rows:
        media.append((slots[begun], count))
        begun += count
    return Extent(len(ids), tuple(media))
