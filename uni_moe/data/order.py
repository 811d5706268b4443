"""The order in which a phase meets its examples: a pure function of blend, seed and position.

Positions are cut into short blocks. The blend fixes how many draws of each modality a block holds,
the seed shuffles them. Each modality passes through its keys in epochs; in an epoch a key's place
follows from a hash of (seed, epoch, key). So any position is found without playing the earlier
ones, restarts and workers change nothing, and a removed key leaves the others in their order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import ceil, lcm

from uni_moe.errors import DataError, bullets

Draw = tuple[str, str]  # modality, key


class Order:
    """The endless order of a phase's examples.

    At the end of every block each modality was drawn as often as the blend says, to within one
    draw, however long the order runs. Modalities that the blend does not name are not drawn.
    """

    def __init__(
        self, groups: Mapping[str, Sequence[str]], blend: Mapping[str, float], seed: int
    ) -> None:
        """Take each modality's keys, in any order.

        Raises:
            DataError: the blend names a modality without keys.
        """
        empty = sorted(modality for modality in blend if not groups.get(modality))
        if empty or not blend:
            raise DataError(
                f"The blend cannot be drawn:{bullets(empty or ['it names no modality'])}",
                cause="these modalities have no accepted training example for the phase's tasks.",
                remedy="take them out of the phase's `blend` in params.yaml, or add samples.",
            )
        self._seed = seed
        self._keys = {modality: tuple(groups[modality]) for modality in sorted(blend)}
        for modality, keys in self._keys.items():
            assert len(set(keys)) == len(keys), f"a key of {modality} stands twice"
        self._shares = _whole_numbers([blend[modality] for modality in self._keys])
        # The rarest modality has room for one draw in a block, so no count is ever negative.
        self._block_size = ceil(Fraction(sum(self._shares), min(self._shares)))
        self._block = lru_cache(maxsize=2)(self._make_block)
        self._epoch = lru_cache(maxsize=2 * len(self._keys))(self._make_epoch)

    def batch(self, step: int, batch_size: int) -> list[Draw]:
        """Return the draws of one optimizer step; steps count from 0."""
        first = step * batch_size
        return [self.at(position) for position in range(first, first + batch_size)]

    def at(self, position: int) -> Draw:
        """Return the draw at a position, counted from 0."""
        block, place = divmod(position, self._block_size)
        modality, turn = self._block(block)[place]
        epoch, place = divmod(turn, len(self._keys[modality]))
        return modality, self._epoch(modality, epoch)[place]

    def _make_block(self, block: int) -> tuple[tuple[str, int], ...]:
        """Return a block's draws: the modality, and the how-manieth draw of it this is."""
        before, after = self._drawn(block), self._drawn(block + 1)
        draws = [
            (modality, turn)
            for modality, start, end in zip(self._keys, before, after, strict=True)
            for turn in range(start, end)
        ]
        seats = sorted(range(len(draws)), key=lambda i: _hash(self._seed, "blend", block, i))
        modalities = [draws[i][0] for i in seats]
        turns = {modality: iter([t for m, t in draws if m == modality]) for modality in self._keys}
        return tuple((modality, next(turns[modality])) for modality in modalities)

    def _drawn(self, blocks: int) -> list[int]:
        """Return how often each modality is drawn in the first blocks; the sum is exact."""
        total, drawn = sum(self._shares), blocks * self._block_size
        edges, running = [0], 0
        for share in self._shares:
            running += share
            edges.append(drawn * running // total)
        return [right - left for left, right in pairwise(edges)]

    def _make_epoch(self, modality: str, epoch: int) -> tuple[str, ...]:
        return tuple(
            sorted(
                self._keys[modality], key=lambda key: (_hash(self._seed, "epoch", epoch, key), key)
            )
        )


def _whole_numbers(weights: Sequence[float]) -> list[int]:
    """Return whole numbers in exactly the proportion of the weights as they are written."""
    written = [Fraction(repr(weight)) for weight in weights]
    common = lcm(*(weight.denominator for weight in written))
    return [int(weight * common) for weight in written]


def _hash(*parts: object) -> bytes:
    text = "\0".join(map(str, parts)).encode("utf-8", errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()
