"""Whose turn it is: names take turns as their weights say, in an endless order without memory.

Turns are cut into short cycles. The weights fix how many turns of each name a cycle holds, a hash
shuffles them. So any turn is found without playing the earlier ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import ceil, lcm


class Turns:
    """The endless order of some names.

    At the end of every cycle each name had as many turns as its share of the weights says, to less
    than one turn, however long the order runs. Anywhere inside a cycle, and so at any step, of any
    size, it is off by less than 1 + cycle_size * share * (1 - share) turns: nothing adds up. A rare
    name makes cycles long, for it has about one turn in each.

    `told` is what the shuffling follows from.
    """

    def __init__(self, weights: Mapping[str, float | Fraction], *told: object) -> None:
        self.names = tuple(sorted(weights))
        self._told = told
        self._shares = _whole_numbers([weights[name] for name in self.names])
        # The rarest name has room for one turn in a cycle, so no count is ever negative.
        self.cycle_size = ceil(Fraction(sum(self._shares), min(self._shares)))
        self._cycle = lru_cache(maxsize=2)(self.cycle)

    def at(self, position: int) -> tuple[str, int]:
        """Return whose turn a position is, and the how-manieth of this name, both from 0."""
        if len(self.names) == 1:
            return self.names[0], position
        cycle, place = divmod(position, self.cycle_size)
        return self._cycle(cycle)[place]

    def cycle(self, number: int) -> tuple[tuple[str, int], ...]:
        """Return a cycle's turns in order."""
        before, after = self.taken(number), self.taken(number + 1)
        turns = [
            (name, turn)
            for name, start, end in zip(self.names, before, after, strict=True)
            for turn in range(start, end)
        ]
        shuffled = sorted(range(len(turns)), key=lambda i: shuffle(*self._told, number, i))
        names = [turns[i][0] for i in shuffled]
        left = {name: iter([turn for n, turn in turns if n == name]) for name in self.names}
        return tuple((name, next(left[name])) for name in names)

    def taken(self, cycles: int) -> list[int]:
        """Return how many turns each name takes in the first cycles; the sum is exact."""
        total, taken = sum(self._shares), cycles * self.cycle_size
        edges, running = [0], 0
        for share in self._shares:
            running += share
            edges.append(taken * running // total)
        return [right - left for left, right in pairwise(edges)]


def shuffle(*told: object) -> bytes:
    """Return where a hash of all that is told puts something: the way to shuffle by sorting."""
    text = "\0".join(map(str, told)).encode("utf-8", errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


def _whole_numbers(weights: Sequence[float | Fraction]) -> list[int]:
    """Return whole numbers in exactly the proportion of the weights as they are written."""
    written = [exact(weight) for weight in weights]
    common = lcm(*(weight.denominator for weight in written))
    return [int(weight * common) for weight in written]


def exact(weight: float | Fraction) -> Fraction:
    """Return a weight as it is written: 0.1 is a tenth."""
    return weight if isinstance(weight, Fraction) else Fraction(repr(weight))
