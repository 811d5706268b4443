"""Which intervals of training are trained again, and how likely that catches one that was changed.

An interval lies between two recorded states of one training; its beginning and its end are states,
too. It is trained again from a kept state whose hash is the recorded one: the nearest at or before
its beginning, else from step 0. Whatever is recorded on the way is compared as well. All is pure.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import comb
from statistics import fmean
from typing import Any

Kept = Mapping[str, Collection[int]]
"""Training -> steps of the states that are kept."""


@dataclass(frozen=True, order=True)
class Interval:
    """The steps of a training after `begin`, up to and with `end`."""

    training: str
    begin: int
    end: int

    @property
    def text(self) -> str:
        """The interval for a person."""
        return f"{self.training}, steps {self.begin + 1} to {self.end}"


@dataclass(frozen=True)
class Chance:
    """How likely one changed interval is caught: wherever it lies, and on average over all."""

    least: float
    mean: float

    def to_json(self) -> dict[str, Any]:
        """Return the chance as a JSON object."""
        return asdict(self)


def intervals_of(training: str, recorded: Iterable[int], steps: int) -> list[Interval]:
    """Return a training's intervals, by the steps whose states are recorded."""
    places = [0, *sorted(step for step in recorded if 0 < step < steps), steps]
    return [Interval(training, begin, end) for begin, end in pairwise(places)]


def draw(intervals: Sequence[Interval], count: int, seed: int) -> list[Interval]:
    """Draw so many intervals, each choice as likely as any other; in the order they are given."""
    chosen = random.Random(seed).sample(range(len(intervals)), min(count, len(intervals)))
    return [intervals[place] for place in sorted(chosen)]


def stretches(drawn: Sequence[Interval], kept: Kept) -> list[Interval]:
    """Return what is trained in one go, so that every drawn interval is in it."""
    found: list[Interval] = []
    for one in _grown(drawn, kept):
        last = found[-1] if found else None
        if last is not None and last.training == one.training and one.begin <= last.end:
            found[-1] = Interval(last.training, last.begin, max(last.end, one.end))
        else:
            found.append(one)
    return found


def covered(intervals: Iterable[Interval], by: Iterable[Interval]) -> list[Interval]:
    """Return the intervals that lie inside of what is trained in one go."""
    whole = list(by)
    return [one for one in intervals if any(_holds(stretch, one) for stretch in whole)]


def chance_of(one: Interval, intervals: Sequence[Interval], count: int, kept: Kept) -> float:
    """Return how likely a draw catches a change of one interval.

    It is caught by a draw of itself, or of a later one that is trained again through it.
    """
    total = len(intervals)
    catching = sum(_holds(_start(other, kept), one) for other in intervals)
    return 1.0 - comb(total - catching, count) / comb(total, count)


def chance(intervals: Sequence[Interval], count: int, kept: Kept) -> Chance:
    """Return how likely a draw of so many intervals catches one that was changed."""
    count = min(count, len(intervals))
    each = [chance_of(one, intervals, count, kept) for one in intervals]
    return Chance(min(each), fmean(each)) if each else Chance(0.0, 0.0)


def _grown(drawn: Sequence[Interval], kept: Kept) -> list[Interval]:
    """Return drawn intervals from where they are trained, in order, trainings as they come."""
    order = {name: place for place, name in enumerate(dict.fromkeys(i.training for i in drawn))}
    grown = [_start(one, kept) for one in drawn]
    return sorted(grown, key=lambda one: (order[one.training], one.begin, one.end))


def _start(one: Interval, kept: Kept) -> Interval:
    """Return an interval grown back to the nearest kept state."""
    begin = max((step for step in kept.get(one.training, ()) if step <= one.begin), default=0)
    return Interval(one.training, begin, one.end)


def _holds(stretch: Interval, one: Interval) -> bool:
    same = stretch.training == one.training
    return same and stretch.begin <= one.begin and one.end <= stretch.end
