"""How far two models differ on the same items, and what so few items cannot show. Pure.

Items count as independent; several questions about one picture are more alike than that.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

Groups = list[tuple[float, int]]  # a difference -> how many items have it, the least first
_NEAR = 1e-12
_MOST_STEPS = 200


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

    A bound is the true difference from which the observed one lies as far as `confidence` allows,
    in standard errors as they are where that bound is true: those of the most likely distribution
    that has it as its mean, in which an item may also lose, or win, a whole point where none did.
    Among `claims` claims the error is shared out evenly.

    Source: T. Tango, Statistics in Medicine 17 (1998), whose score interval this is for right and
    wrong answers; A. B. Owen, Biometrika 75 (1988), for the most likely distribution of other
    scores. Bonferroni for the shared error.
    """
    differences = _differences(candidate, champion)
    n = len(differences)
    groups = _groups(differences)
    z, z_claims = _z(confidence), _z(1 - (1 - confidence) / claims)
    return Paired(
        n=n,
        better=sum(value > 0 for value in differences),
        worse=sum(value < 0 for value in differences),
        difference=math.fsum(differences) / max(1, n),
        low=_low(groups, z),
        high=-_low([(-value, count) for value, count in reversed(groups)], z),
        surely=_low(groups, z_claims),
        detectable=_detectable(groups, z_claims, NormalDist().inv_cdf(power)),
    )


def items_for(
    candidate: Sequence[float], champion: Sequence[float], *, margin: float, confidence: float
) -> int | None:
    """Return about how many items would show a difference like this one to be within the margin.

    None where it lies beyond the margin already, or nothing is known.
    """
    groups = _groups(_differences(candidate, champion))
    distance = errors_above(groups, -margin)
    if not distance > 0:
        return None
    return math.ceil(_count(groups) * (_z(confidence) / distance) ** 2)


def errors_above(groups: Groups, true: float) -> float:
    """Return by how many standard errors a mean lies above a true one, by the errors of that one.

    0 where it does not lie above, or is no number.
    """
    n = _count(groups)
    total = math.fsum(count * (value - true) for value, count in groups)
    if not total > 0:
        return 0.0
    if true <= -1:  # where all lose a whole point, and nothing varies
        return math.inf
    return total / math.sqrt(n * _variance(groups, true))


def _variance(groups: Groups, true: float) -> float:
    """Return the variance of the most likely distribution of a mean below the observed one.

    Its weights are those of empirical likelihood. Where no weights of what was observed are likely
    enough, the rest lies on the loss of a whole point.
    """
    n, most = _count(groups), 1 / (1 + true)

    def pull(tilt: float) -> float:  # times a factor above 0, which takes away the pole at `most`
        pulls = (count * (value - true) / (1 + tilt * (value - true)) for value, count in groups)
        return math.fsum(pulls) * (1 - tilt / most)

    above = [(value, count) for value, count in groups if value > -1]
    tilt = most
    if above != groups or math.fsum((v - true) / (1 + v) * count for v, count in above) < 0:
        tilt = _root(pull, 0.0, most * (1 - _NEAR))
    weights = [count / n / (1 + tilt * (value - true)) for value, count in groups]
    rest = max(0.0, 1 - math.fsum(weights)) * (1 + true) ** 2
    parts = (
        weight * (value - true) ** 2 for weight, (value, _) in zip(weights, groups, strict=True)
    )
    return math.fsum(parts) + rest


def _low(groups: Groups, z: float) -> float:
    """Return the lower bound; the least that there is where nothing is known."""
    n = _count(groups)
    mean = math.fsum(value * count for value, count in groups) / max(1, n)
    if not (n and mean > -1):
        return -1.0
    return _root(lambda true: errors_above(groups, true) - z, -1 + _NEAR, mean)


def _detectable(groups: Groups, z: float, z_power: float) -> float:
    """Return the difference that is shown with a power, where as much differs as does here.

    At least as much differs as that difference takes, in whole points.
    """
    n = _count(groups)
    seen = math.fsum(value * value * count for value, count in groups) / max(1, n)

    def beyond(true: float) -> float:
        square = max(seen, true)
        spread = math.sqrt(max(0.0, square - true * true))
        return math.sqrt(n) * true - z * math.sqrt(square) - z_power * spread

    return _root(beyond, _NEAR, 1.0) if beyond(1.0) > 0 else 1.0


def _root(found: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function changes its sign, by regula falsi of the Illinois kind."""
    at_low, at_high = found(low), found(high)
    side = 0
    for _ in range(_MOST_STEPS):
        if high - low <= _NEAR:
            break
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        if not low < middle < high:
            middle = (low + high) / 2
        here = found(middle)
        if (here > 0) == (at_low > 0):
            low, at_low = middle, here
            at_high, side = (at_high / 2 if side == 1 else at_high), 1
        else:
            high, at_high = middle, here
            at_low, side = (at_low / 2 if side == -1 else at_low), -1
    return (low + high) / 2


def _differences(candidate: Sequence[float], champion: Sequence[float]) -> list[float]:
    return [ours - theirs for ours, theirs in zip(candidate, champion, strict=True)]


def _groups(differences: Sequence[float]) -> Groups:
    """Return each difference with how many items have it, the least first."""
    return sorted(Counter(differences).items())


def _count(groups: Groups) -> int:
    return sum(count for _, count in groups)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)
