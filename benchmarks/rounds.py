"""Interleaved rounds: everyone is measured in every round, in an order that is drawn anew.

A ratio is taken inside a round, where the machine is as busy for one as for the other, and the
median is taken over rounds. Times of different rounds are never divided.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Protocol

TUNED, SHIPPED = "tuned", "as shipped"
OURS = "ours"
WALL = "wall clock"
MOST_CALLS = 16  # of one contender in one round
WARM_ROUNDS = 1  # not counted: heaps grow to their size


@dataclass(frozen=True)
class Contender:
    """Somebody who is measured, in a process with these settings."""

    name: str
    setting: str = TUNED

    def __str__(self) -> str:
        """Return how tables call it."""
        return f"{self.name}, {self.setting}"


@dataclass(frozen=True)
class Burst:
    """What the calls took, in the middle; `peak_bytes` they held at most on an accelerator."""

    seconds: float
    peak_bytes: int | None = None


class Place(Protocol):
    """A process with one setting, in which contenders run."""

    @property
    def names(self) -> Sequence[str]:
        """Who runs here."""

    @property
    def absent(self) -> Mapping[str, str]:
        """Who should and cannot, and why."""

    def burst(self, name: str, first: int, calls: int) -> Burst:
        """Run calls number first, first + 1, … of a contender; as many before do not count."""


@dataclass
class Measured:
    """Per contender: seconds per call, one number a round, how many calls that were, and bytes.

    `absent` says why somebody could not be measured.
    """

    seconds: dict[Contender, list[float]] = field(default_factory=dict)
    calls: dict[Contender, int] = field(default_factory=dict)
    peak_bytes: dict[Contender, int | None] = field(default_factory=dict)
    absent: dict[Contender, str] = field(default_factory=dict)

    def ratios(self, what: Contender, over: Contender) -> list[float]:
        """Return a contender's time over another's, round by round."""
        return [a / b for a, b in zip(self.seconds[what], self.seconds[over], strict=True)]


def middle(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, median(values), high


def orders(
    contenders: Sequence[Contender], rounds: int, seed: int
) -> Iterator[tuple[Contender, ...]]:
    """Yield the order of every round: all contenders once, shuffled."""
    draw = random.Random(seed)
    for _ in range(rounds):
        yield tuple(draw.sample(contenders, len(contenders)))


def calls_of(seconds: float, burst_s: float) -> int:
    """Return how many calls of this length fill a burst; one at least."""
    return min(MOST_CALLS, max(1, math.ceil(burst_s / max(seconds, 1e-9))))


def measure(places: Mapping[str, Place], *, rounds: int, seed: int, burst_s: float) -> Measured:
    """Warm everyone up, then measure all of them in every round.

    All read the same inputs: a round begins behind the last input of the round before.
    """
    everyone = [Contender(name, setting) for setting, at in places.items() for name in at.names]
    found = Measured({one: [] for one in everyone})
    for setting, at in places.items():
        found.absent |= {Contender(name, setting): why for name, why in at.absent.items()}
    for one in everyone:
        warm = places[one.setting].burst(one.name, 0, 1)
        found.calls[one] = calls_of(warm.seconds, burst_s)
        found.peak_bytes[one] = warm.peak_bytes
    stride = 2 * max(found.calls.values())
    for index, order in enumerate(orders(everyone, WARM_ROUNDS + rounds, seed)):
        for one in order:
            burst = places[one.setting].burst(one.name, 2 + index * stride, found.calls[one])
            if index >= WARM_ROUNDS:
                found.seconds[one].append(burst.seconds)
    return found
