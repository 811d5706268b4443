"""The order in which a phase meets its examples: a pure function of (seed, phase, blend, step).

Modalities take turns as the blend says, and within a modality its sources, where they are weighed.
Each pool of keys is passed through in epochs; in an epoch a key's place follows from a hash of
(seed, phase, epoch, key). So any position is found without playing the earlier ones, and restarts,
workers and processes change nothing. A key that went leaves a hole: it keeps its places, what
should be drawn there is absent, and nobody else moves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from uni_moe.data.blend import Turns, exact, shuffle
from uni_moe.errors import DataError, bullets
from uni_moe.records import source_of

_EPOCHS = 4  # kept in memory, of each pool: a step may stand between two of them


class Draw(NamedTuple):
    """A key that a step draws. `slot` is its place in the step, holes counted too."""

    slot: int
    modality: str
    key: str


class Order:
    """The endless order of a phase's examples.

    Modalities that the blend does not name are not drawn. Sources of one weight are one pool, drawn
    as often as it has keys; a pool of twice the weight draws each of its keys twice as often.
    """

    def __init__(  # noqa: PLR0913 - what an order follows from
        self,
        groups: Mapping[str, Sequence[str]],
        blend: Mapping[str, float],
        seed: int,
        *,
        phase: str = "",
        sources: Mapping[str, float] | None = None,
        holes: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Plan the order.

        Args:
            groups: each modality's keys, in any order.
            blend: the weights of modalities.
            seed: shuffles all.
            phase: shuffles all, too: two phases meet their examples in different orders.
            sources: how often a key of a source is drawn beside one of a source without a weight.
            holes: by modality, the keys that went.

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
        self._told = (seed, phase)
        self._turns = Turns(blend, *self._told, "blend")
        self._holes = {name: frozenset((holes or {}).get(name, ())) for name in blend}
        self._pools: dict[str, dict[str, tuple[str, ...]]] = {}
        self._shares: dict[str, Turns] = {}
        for modality in blend:
            self._weigh(modality, [*groups[modality], *self._holes[modality]], sources or {})
        self._epoch = lru_cache(maxsize=_EPOCHS * sum(map(len, self._pools.values())))(self.epoch)

    def at(self, position: int) -> tuple[str, str]:
        """Return the modality and the key at a position, counted from 0; it may be a hole."""
        modality, turn = self._turns.at(position)
        pool, turn = self._shares[modality].at(turn)
        epoch, place = divmod(turn, len(self._pools[modality][pool]))
        return modality, self._epoch(modality, pool, epoch)[place]

    def draws(self, first: int, last: int) -> list[Draw]:
        """Return what is drawn at positions from `first` to before `last`; holes are left out."""
        found = [Draw(slot, *self.at(first + slot)) for slot in range(last - first)]
        return [draw for draw in found if draw.key not in self._holes[draw.modality]]

    def epoch(self, modality: str, pool: str, number: int) -> tuple[str, ...]:
        """Return a pool's keys in the order of one epoch, those that went among them."""

        def place(key: str) -> tuple[bytes, str]:
            return shuffle(*self._told, "epoch", number, key), key

        return tuple(sorted(self._pools[modality][pool], key=place))

    def _weigh(self, modality: str, keys: Sequence[str], sources: Mapping[str, float]) -> None:
        """Divide a modality's keys into pools by the weights of their sources."""
        assert len(set(keys)) == len(keys), f"a key of {modality} stands twice"
        pools: dict[Fraction, list[str]] = {}
        for key in keys:
            pools.setdefault(exact(sources.get(source_of(key), 1.0)), []).append(key)
        self._pools[modality] = {str(weight): tuple(pool) for weight, pool in pools.items()}
        shares = {str(weight): weight * len(pool) for weight, pool in pools.items()}
        self._shares[modality] = Turns(shares, *self._told, "sources", modality)
