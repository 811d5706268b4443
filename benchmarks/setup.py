"""How a question is measured, and the road from contenders to times."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.answers import Bars
from benchmarks.places import Build, Clock, places
from benchmarks.rounds import SHIPPED, Measured, measure


@dataclass(frozen=True)
class Setup:
    """What all questions share. `burst_s` is how long one contender runs in one round."""

    rounds: int
    seed: int
    threads: int
    device: str
    burst_s: float
    tuned_only: bool

    @property
    def clock(self) -> Clock:
        """What time is measured in."""
        return Clock(self.threads, self.device)

    def compare(self, tuned: Build, shipped: Build | None = None) -> Measured:
        """Measure contenders of this process, and of one as torch ships it where that is asked."""
        beside = None if self.tuned_only else shipped
        with places(self.clock, tuned, beside) as found:
            return measure(found, rounds=self.rounds, seed=self.seed, burst_s=self.burst_s)

    def held(self, bars: Bars) -> Bars:
        """Return the bars that are held: with `tuned_only` none of peers as shipped."""
        return {
            pair: bar
            for pair, bar in bars.items()
            if not (self.tuned_only and SHIPPED in (one.setting for one in pair))
        }
