"""How far two models differ on the same items, and what so few items cannot show. Pure.

Items count as independent; several questions about one picture are more alike than that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any


@dataclass(frozen=True)
class Paired:
    """Candidate less champion over `n` items, as shares in [-1, 1].

    `low` and `high` bound the difference. `surely` is its lower bound where one claim among several
    is picked afterwards. `detectable` is the smallest true difference that would likely be shown.
    """

    n: int
    better: int
    worse: int
    difference: float
    low: float
    high: float
    surely: float
    detectable: float

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as a JSON object."""
        return asdict(self)


def compare(
    candidate: Sequence[float],
    champion: Sequence[float],
    *,
    confidence: float,
    power: float,
    claims: int,
) -> Paired:
    """Compare scores in [0, 1] of the same items, in the same order.

    The interval is Wald's after one pair won, one lost and two drawn, each counted half, so that it
    has a width where all items agree. Among `claims` claims the error is shared out evenly.

    Source: A. Agresti and Y. Min, Statistics in Medicine 24 (2005), for right and wrong answers;
    for scores between them the same pairs are added. Bonferroni for the shared error.
    """
    pairs = zip(candidate, champion, strict=True)
    differences = [ours - theirs for ours, theirs in pairs]
    n = len(differences)
    error = _error(differences)
    middle = math.fsum(differences) / (n + 2)
    z, z_claims = _z(confidence), _z(1 - (1 - confidence) / claims)
    return Paired(
        n=n,
        better=sum(value > 0 for value in differences),
        worse=sum(value < 0 for value in differences),
        difference=math.fsum(differences) / max(1, n),
        low=max(-1.0, middle - z * error),
        high=min(1.0, middle + z * error),
        surely=max(-1.0, middle - z_claims * error),
        detectable=(z_claims + NormalDist().inv_cdf(power)) * error,
    )


def items_for(compared: Paired, margin: float) -> int | None:
    """Return about how many items would show a difference like this one to be within the margin.

    None where it lies beyond the margin already.
    """
    room = compared.difference + margin
    if not room > 0:
        return None
    half = (compared.high - compared.low) / 2
    return math.ceil((compared.n + 2) * (half / room) ** 2)


def _error(differences: Sequence[float]) -> float:
    """Return the standard error of the mean difference, with the added pairs."""
    n = len(differences) + 2
    middle = math.fsum(differences) / n
    square = (math.fsum(value * value for value in differences) + 1) / n
    return math.sqrt(max(0.0, square - middle * middle) / n)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)
