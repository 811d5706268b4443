"""Which intervals are trained again, and how often a draw finds one that was changed."""

from math import comb

import pytest

from uni_moe.verify.intervals import (
    Interval,
    chance,
    chance_of,
    covered,
    draw,
    intervals_of,
    stretches,
)

DRAWS = 200
A = [Interval("a", begin, begin + 10) for begin in range(0, 50, 10)]
B = [Interval("b", begin, begin + 10) for begin in range(0, 30, 10)]
ALL = [*A, *B]
EVERY = {"a": range(10, 50, 10), "b": range(10, 30, 10)}  # every state is kept
KEPT = pytest.mark.parametrize("kept", [{}, {"a": [20]}, EVERY])


@pytest.mark.parametrize(
    ("recorded", "steps", "ends"),
    [
        ([], 3, [(0, 3)]),
        ([2], 3, [(0, 2), (2, 3)]),
        ([4, 2], 6, [(0, 2), (2, 4), (4, 6)]),
        ([2, 6], 6, [(0, 2), (2, 6)]),
    ],
)
def test_intervals_lie_between_recorded_states_from_first_to_last_step(recorded, steps, ends):
    assert [(i.begin, i.end) for i in intervals_of("a", recorded, steps)] == ends


@pytest.mark.parametrize(
    ("drawn", "kept", "trained"),
    [
        ([A[0]], {}, [("a", 0, 10)]),
        ([A[3]], {}, [("a", 0, 40)]),
        ([A[3]], {"a": [10, 20]}, [("a", 20, 40)]),
        ([A[3]], {"a": [40], "b": [30]}, [("a", 0, 40)]),
        ([A[0], A[3]], {"a": [30]}, [("a", 0, 10), ("a", 30, 40)]),
        ([A[2], A[3]], {"a": [20, 30]}, [("a", 20, 40)]),
        ([A[1], A[4], B[0]], {}, [("a", 0, 50), ("b", 0, 10)]),
        ([B[1], A[0]], {"b": [10]}, [("b", 10, 20), ("a", 0, 10)]),
        ([], {}, []),
    ],
)
def test_an_interval_is_trained_from_the_nearest_kept_state(drawn, kept, trained):
    found = stretches(drawn, kept)
    assert [(one.training, one.begin, one.end) for one in found] == trained
    assert set(drawn) <= set(covered(ALL, found))


def test_a_draw_is_a_function_of_its_seed_and_never_takes_one_twice():
    assert draw(ALL, 3, seed=1) == draw(ALL, 3, seed=1)
    assert len({tuple(draw(ALL, 3, seed)) for seed in range(50)}) > 20
    assert all(len(set(draw(ALL, 3, seed))) == 3 for seed in range(50))
    assert draw(ALL, 99, seed=5) == ALL


@KEPT
def test_all_intervals_find_any_change_for_certain(kept):
    assert chance(ALL, len(ALL), kept).least == 1.0
    assert chance(ALL, 99, kept).mean == 1.0
    assert covered(ALL, stretches(ALL, kept)) == ALL


def test_where_every_state_is_kept_the_chance_is_the_share_that_is_drawn():
    for count in range(len(ALL) + 1):
        found = chance(ALL, count, EVERY)
        assert found.least == pytest.approx(count / len(ALL))
        assert found.mean == pytest.approx(count / len(ALL))


@KEPT
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_chance_of_an_interval_is_that_of_all_possible_draws(kept, count):
    from itertools import combinations

    for changed in ALL:
        hits = sum(
            changed in covered(ALL, stretches(drawn, kept)) for drawn in combinations(ALL, count)
        )
        by_hand = hits / comb(len(ALL), count)
        assert chance_of(changed, ALL, count, kept) == pytest.approx(by_hand)


def likely(hits, share):
    """Say whether so many hits of all draws are no surprise: both tails above one in 10,000."""
    weights = [comb(DRAWS, n) * share**n * (1 - share) ** (DRAWS - n) for n in range(DRAWS + 1)]
    return min(sum(weights[: hits + 1]), sum(weights[hits:])) > 1e-4


@KEPT
@pytest.mark.parametrize("count", [1, 3, 6])
def test_200_draws_find_a_changed_interval_as_often_as_is_said(kept, count):
    for changed in ALL:
        hits = sum(
            changed in covered(ALL, stretches(draw(ALL, count, seed), kept))
            for seed in range(DRAWS)
        )
        assert likely(hits, chance_of(changed, ALL, count, kept)), (changed, hits)


@KEPT
def test_the_least_chance_holds_wherever_the_change_lies(kept):
    found = chance(ALL, 3, kept)
    assert found.least == pytest.approx(min(chance_of(one, ALL, 3, kept) for one in ALL))
    assert found.least >= 3 / len(ALL) - 1e-12
    assert found.mean >= found.least


def test_nothing_to_draw_from_promises_nothing():
    assert chance([], 3, {}).least == 0.0
    assert draw([], 3, seed=0) == []
