"""A curve that grows for days in a room of fixed size.

The steps are cut into equal parts, of each of which stay the least and the greatest number and the
first that is not finite; when there are too many parts, two become one. The last number stays, too.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from uni_moe.registry.read import Point

PARTS = 400  # of a curve; at most three points each, and mostly two


@dataclass(slots=True)
class _Part:
    number: int  # which one: step // span
    least: Point | None = None
    greatest: Point | None = None
    odd: Point | None = None

    def add(self, point: Point) -> None:
        if not math.isfinite(point.value):
            self.odd = self.odd or point
            return
        if self.least is None or point.value < self.least.value:
            self.least = point
        if self.greatest is None or point.value > self.greatest.value:
            self.greatest = point

    def points(self) -> list[Point]:
        """Return what stays, in order; a point that is both least and greatest once."""
        there = (self.least, self.greatest, self.odd)
        found = {one.step: one for one in there if one is not None}
        return [found[step] for step in sorted(found)]


@dataclass(slots=True)
class _Odd:
    """Neighbouring tellings of one kind that are not finite: from a step to another, how many."""

    first: int
    last: int
    count: int

    def before(self, step: int) -> int:
        """Return how many were told before a step between; exact where all are equally far."""
        return 1 + (self.count - 1) * (step - 1 - self.first) // (self.last - self.first)


class Thinned:
    """The points of a curve, or those that stand for them."""

    def __init__(self, most_parts: int = PARTS) -> None:
        """Begin empty."""
        self._most, self._span = most_parts, 1
        self._parts: list[_Part] = []
        self.last: Point | None = None
        self._odd: dict[str, list[_Odd]] = {}  # nan, inf or -inf -> where

    def add(self, step: int, value: float) -> None:
        """Add a step's number. One of an earlier step takes back all from there on."""
        if self.last is not None and step <= self.last.step:
            self.cut(step)
        before, self.last = self.last, Point(step, value)
        if not math.isfinite(value):
            self._count(self.last, before)
        self._put(self.last)
        while len(self._parts) > self._most:
            self._widen()

    @property
    def odd(self) -> Counter[str]:
        """How many numbers were nan, inf or -inf."""
        return Counter(
            {kind: sum(one.count for one in found) for kind, found in self._odd.items() if found}
        )

    def cut(self, step: int) -> None:
        """Forget everything from a step on: a training went back and tells it again."""
        for found in self._odd.values():
            while found and found[-1].first >= step:
                found.pop()
            if found and found[-1].last >= step:
                one = found[-1]
                found[-1] = _Odd(one.first, step - 1, one.before(step))
        while self._parts and self._parts[-1].number > step // self._span:
            self._parts.pop()
        if self._parts and self._parts[-1].number == step // self._span:
            for point in self._parts.pop().points():
                if point.step < step:
                    self._put(point)
        if self.last is not None and self.last.step >= step:
            self.last = self._parts[-1].points()[-1] if self._parts else None

    def points(self) -> list[Point]:
        """Return the points in the order of steps, the last one among them."""
        found = [point for part in self._parts for point in part.points()]
        if self.last is not None and (not found or found[-1].step != self.last.step):
            found.append(self.last)
        return found

    def _count(self, point: Point, before: Point | None) -> None:
        """Count a number that is not finite; where there are too many places, two become one."""
        found = self._odd.setdefault(str(point.value), [])
        if found and before is not None and str(before.value) == str(point.value):
            found[-1].last, found[-1].count = point.step, found[-1].count + 1
            return
        found.append(_Odd(point.step, point.step, 1))
        if len(found) > self._most:
            found[:] = [
                _Odd(pair[0].first, pair[-1].last, sum(one.count for one in pair))
                for pair in (found[at : at + 2] for at in range(0, len(found), 2))
            ]

    def _put(self, point: Point) -> None:
        number = point.step // self._span
        if not self._parts or self._parts[-1].number != number:
            self._parts.append(_Part(number))
        self._parts[-1].add(point)

    def _widen(self) -> None:
        old = self._parts
        self._span, self._parts = 2 * self._span, []
        for part in old:
            for point in part.points():
                self._put(point)
