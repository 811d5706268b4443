"""A difference that is no number misses the bar, on whichever rank and however many are fine."""

from math import inf, isinf, nan

import pytest

from benchmarks.layouts import Found, case_of, finite, worst


def found(seed, off, norm_off=0.0):
    return Found(seed, finite(off), 1.0, finite(norm_off), 0, 0.1)


def reached(every):
    return all(number.reached("any") for number in case_of(every, 2).numbers)


def test_near_gradients_keep_the_bar():
    assert reached([found(seed, 1e-8, 1e-7) for seed in range(20)])


@pytest.mark.parametrize(("off", "norm_off"), [(nan, 0.0), (inf, 0.0), (0.0, nan), (0.0, inf)])
@pytest.mark.parametrize("at", [0, 7, 19])
def test_one_that_is_no_number_misses_it(off, norm_off, at):
    every = [found(seed, 1e-8) for seed in range(20)]
    every[at] = found(at, off, norm_off)
    assert not reached(every)
    told = [one for one in case_of(every, 2).numbers if isinf(one.value)]
    assert told[0].facts["worst_seed"] == at


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_ranks_the_one_that_is_off_counts(order):
    ranks = [found(3, 1e-8, nan), found(3, 1e-7)][::order]
    assert worst(ranks).off == 1e-7
    assert not reached([worst(ranks)])
