"""The gate's paired intervals: beside a slow version, and how often they err."""

import math
import random
from statistics import NormalDist, fmean

import numpy as np
import pytest

from tests.unit.registry.test_gate import exam
from tests.unit.registry.workspace import RULES
from uni_moe.registry.gate import decide
from uni_moe.registry.paired import compare, items_for

TERMS = {"confidence": 0.95, "power": 0.8}


def by_hand(better, worse, same, z):
    """Return Agresti and Min's interval from their four cells, half a pair added to each."""
    b, c, n = better + 0.5, worse + 0.5, better + worse + same + 2
    middle = (b - c) / n
    half = z * math.sqrt(b + c - (b - c) ** 2 / n) / n
    return middle - half, middle + half


@pytest.mark.parametrize(
    "better, worse, same", [(10, 4, 86), (0, 0, 30), (0, 9, 1), (5, 5, 0), (120, 80, 4000)]
)
def test_the_paired_interval_of_the_gate_is_agresti_and_mins(better, worse, same):
    ours = [1.0] * better + [0.0] * worse + [1.0] * same
    theirs = [0.0] * better + [1.0] * worse + [1.0] * same
    found = compare(ours, theirs, claims=1, **TERMS)
    z = NormalDist().inv_cdf(0.975)
    low, high = by_hand(better, worse, same, z)
    assert (found.low, found.high) == pytest.approx((max(-1.0, low), min(1.0, high)))
    assert found.surely == found.low
    assert (found.better, found.worse, found.n) == (better, worse, len(ours))


def test_the_gate_compares_shares_of_words_by_nearly_the_bootstrap():
    dice = np.random.default_rng(3)
    ours, theirs = dice.random(500), dice.random(500)
    found = compare(list(ours), list(theirs), claims=1, **TERMS)
    differences = ours - theirs
    means = [dice.choice(differences, 500).mean() for _ in range(4000)]
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.004)


def test_many_claims_widen_the_lower_bound_of_the_gate():
    ours, theirs = [1.0] * 60 + [0.0] * 40, [1.0] * 50 + [0.0] * 50
    bounds = [compare(ours, theirs, claims=claims, **TERMS).surely for claims in (1, 2, 5)]
    assert bounds == sorted(bounds, reverse=True)


def test_no_items_show_nothing():
    found = compare([], [], claims=1, **TERMS)
    assert found.difference == 0.0
    assert found.low < -0.97
    assert found.high > 0.97


def test_as_many_items_as_the_gate_names_would_do():
    ours, theirs = [1.0] * 51 + [0.0] * 49, [0.0] * 2 + [1.0] * 48 + [0.0] * 50
    few = compare(ours, theirs, claims=1, **TERMS)
    wanted = items_for(few, 0.03)
    times = math.ceil(wanted / 100)
    assert few.low < -0.03 or wanted <= 100
    assert compare(ours * times, theirs * times, claims=1, **TERMS).low >= -0.03
    assert items_for(compare(theirs, [1.0] * 100, claims=1, **TERMS), 0.03) is None


def pair(dice, n, base, gain, turned):
    """Return the items that two models answer rightly; the second gains, and turns some over."""
    theirs = {item for item in range(n) if dice.random() < base}
    flipped = {item for item in range(n) if dice.random() < turned}
    won = {item for item in range(n) if dice.random() < gain}
    ours = {item for item in range(n) if (item in theirs) != (item in flipped)} | won
    return ours, theirs


def promoted(seed, *, gain, n=300, base=0.5, turned=0.1):
    dice = random.Random(seed)
    names = ("image", "video", "audio", "speech", "text")
    pairs = {name: pair(dice, n, base, gain, turned) for name in names}
    ours = exam("new", n=n, **{name: one for name, (one, _) in pairs.items()})
    theirs = exam("old", n=n, **{name: one for name, (_, one) in pairs.items()})
    rules = RULES.__class__(**{**vars(RULES), "min_over_chance": -1.0, "margin": 1.0})
    return decide(ours, theirs, rules).promoted


def test_the_gate_calls_an_equal_model_better_less_often_than_it_says():
    """With five modalities to choose from, and a margin that forbids nothing."""
    assert fmean(promoted(seed, gain=0.0) for seed in range(400)) <= 0.05


def test_the_gate_sees_the_difference_that_it_says_it_would():
    differences = []
    for seed in range(300):
        ours, theirs = pair(random.Random(seed), 300, 0.5, 0.16, 0.1)
        scores = [[float(i in right) for i in range(300)] for right in (ours, theirs)]
        differences.append(compare(*scores, claims=5, **TERMS))
    detectable = fmean(one.detectable for one in differences)
    true = fmean(one.difference for one in differences)
    assert true == pytest.approx(detectable, abs=0.005)
    assert fmean(one.surely > 0 for one in differences) == pytest.approx(0.8, abs=0.08)
