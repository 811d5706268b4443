"""Chance that is the same everywhere: choices, noise and balanced decks, each from a text seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")


class Dice:
    """Random choices that depend on nothing but the seed's text."""

    def __init__(self, *seed: object) -> None:
        self._seed = "/".join(map(str, seed))
        self._random = random.Random(self._seed)  # seeded by text: sha512, on every machine
        self._noises = 0

    def between(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * self._random.random()

    def whole(self, low: int, high: int) -> int:
        """Return a whole number in [low, high]."""
        return low + int(self._random.random() * (high - low + 1))

    def one_of(self, values: Sequence[T]) -> T:
        """Return one of the values, each with the same chance."""
        return values[self.whole(0, len(values) - 1)]

    def shuffled(self, values: Sequence[T]) -> list[T]:
        """Return the values in random order."""
        order = sorted(range(len(values)), key=lambda _: self._random.random())
        return [values[index] for index in order]

    def noise(self, n: int) -> npt.NDArray[np.float64]:
        """Return n numbers, uniform in [-1, 1): bytes of SHAKE-256, which never change."""
        self._noises += 1
        seed = f"{self._seed}/noise{self._noises}".encode()
        whole = np.frombuffer(hashlib.shake_256(seed).digest(2 * n), dtype="<i2")
        return whole / 32768.0


class Deck:
    """Deals pairs (answer, wording) so that guessing from the wording is guessing blind.

    Among the first n pairs every answer comes equally often (up to one), and so does every answer
    with every wording. The pairs dealt so far do not depend on how many follow.
    """

    def __init__(self, seed: str, answers: int, wordings: int) -> None:
        self._seed, self._answers, self._wordings = seed, answers, wordings
        self._dealt = 0

    def deal(self) -> tuple[int, int]:
        """Return the next pair, as indices."""
        block, place = divmod(self._dealt, self._answers)
        self._dealt += 1
        answer = Dice(self._seed, block).shuffled(range(self._answers))[place]
        start = Dice(self._seed, "start", block // self._wordings, answer)
        return answer, (start.whole(0, self._wordings - 1) + block) % self._wordings
