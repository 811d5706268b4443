"""The gate's paired intervals: beside a slow version, and how often they err."""

import math
import random
from collections import Counter
from statistics import NormalDist, fmean

import numpy as np
import pytest

from tests.unit.registry.test_gate import exam
from tests.unit.registry.workspace import RULES
from uni_moe.registry.gate import decide
from uni_moe.registry.paired import compare, errors_above, items_for

TERMS = {"confidence": 0.95, "power": 0.8}
Z = NormalDist().inv_cdf(0.975)


def by_hand(better, worse, n, true):
    """Return Tango's statistic from his closed form, for one cell or many."""
    linear = -better - worse + (2 * n - better + worse) * true
    root = np.sqrt(linear * linear + 8 * n * worse * true * (1 - true))
    lost = (root - linear) / (4 * n)
    return (better - worse - n * true) / np.sqrt(n * (2 * lost + true * (1 - true)))


def scores_of(better, worse, same):
    return (
        [1.0] * better + [0.0] * worse + [1.0] * same,
        [0.0] * better + [1.0] * worse + [1.0] * same,
    )


@pytest.mark.parametrize(
    "better, worse, same",
    [(10, 4, 86), (0, 0, 30), (0, 9, 1), (5, 5, 0), (3, 0, 197), (0, 3, 197), (120, 80, 4000)],
)
def test_the_paired_interval_of_the_gate_is_tangos(better, worse, same):
    ours, theirs = scores_of(better, worse, same)
    found, n = compare(ours, theirs, claims=1, **TERMS), better + worse + same
    assert by_hand(better, worse, n, found.low) == pytest.approx(Z, abs=1e-6)
    assert by_hand(worse, better, n, -found.high) == pytest.approx(Z, abs=1e-6)
    assert found.surely == found.low
    assert (found.better, found.worse, found.n) == (better, worse, n)


SHAPES = [(0.0, 0.03), (0.01, 0.04), (0.03, 0.06), (0.1, 0.13), (0.3, 0.33)]  # won, lost


def shown(n, won, lost):
    """Return how likely items show that at most 3 points are lost: a sum over all that may come."""
    better, worse = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    fits = (better + worse <= n) & ((better == 0) | (won > 0))
    same = np.where(better + worse <= n, n - better - worse, 0)
    log = logs[n] - logs[better] - logs[worse] - logs[same] + same * math.log(1 - won - lost)
    log += better * math.log(won or 1.0) + worse * math.log(lost)
    return float(np.exp(log)[fits & (by_hand(better, worse, n, -0.03) >= Z)].sum())


@pytest.mark.parametrize("won, lost", SHAPES)
@pytest.mark.parametrize("n", [100, 200, 300, 400, 600, 800])
def test_a_loss_of_just_the_margin_passes_as_seldom_as_the_gate_says(n, won, lost):
    assert shown(n, won, lost) <= 0.0275


def test_the_intervals_of_the_gate_are_no_wider_than_they_must_be():
    assert min(shown(800, won, lost) for won, lost in SHAPES) >= 0.018
    for n, differs in ((400, 0.01), (800, 0.02), (800, 0.08)):
        error = math.sqrt(2 * differs / n)  # of an equal model
        assert shown(n, differs, differs) >= NormalDist().cdf(0.03 / error - Z) - 0.07


def fractions(kind, dice, n):
    """Return differences of scores between 0 and 1 whose mean is -3 points in truth."""
    if kind == "whole losses among trifles":
        return np.where(dice.random(n) < 0.03, -1.0, dice.choice([-0.05, 0.0, 0.05], n))
    if kind == "half losses":
        return np.where(dice.random(n) < 0.06, -0.5, 0.0)
    if kind == "losses of all sizes":
        part = dice.random(n)
        return np.select([part < 0.02, part < 0.08, part < 0.1], [-1.0, -0.25, 0.25], 0.0)
    return np.round(dice.random(n) - dice.random(n) - 0.03, 2)


@pytest.mark.parametrize("n", [100, 400])
@pytest.mark.parametrize(
    "kind", ["whole losses among trifles", "half losses", "losses of all sizes", "all over"]
)
def test_shares_of_a_point_err_no_more_often_at_the_margin_of_the_gate(kind, n):
    dice, times = np.random.default_rng(7), 800
    every = (Counter(fractions(kind, dice, n).tolist()) for _ in range(times))
    passed = fmean(errors_above(sorted(found.items()), -0.03) >= Z for found in every)
    assert passed <= 0.025 + 3 * math.sqrt(0.025 / times)


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
    wanted = items_for(ours, theirs, margin=0.03, confidence=0.95)
    times = math.ceil(wanted / 100)
    assert few.low < -0.03 or wanted <= 100
    assert compare(ours * times, theirs * times, claims=1, **TERMS).low >= -0.03
    assert items_for(theirs, [1.0] * 100, margin=0.03, confidence=0.95) is None
    assert items_for([], [], margin=0.03, confidence=0.95) is None
    assert items_for(ours, theirs, margin=1.0, confidence=0.95) == 0


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
