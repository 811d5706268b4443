"""Medians of per-round ratios, orders, and how long a burst is."""

import pytest

from benchmarks.rounds import (
    MOST_CALLS,
    SHIPPED,
    TUNED,
    WARM_ROUNDS,
    Burst,
    Contender,
    Measured,
    calls_of,
    measure,
    middle,
    orders,
)

A, B, C = Contender("a"), Contender("b"), Contender("a", SHIPPED)


class Scripted:
    """Takes as long as its round is busy; remembers what it was asked for."""

    def __init__(self, speeds):
        self.names, self._speeds, self.asked = list(speeds), speeds, []
        self.absent = {"gone": "it is not installed"}

    def burst(self, name, first, calls):
        self.asked.append((name, first, calls))
        busy = 1 + len(self.asked) // 5  # the machine gets slower and slower
        return Burst(self._speeds[name] * busy, peak_bytes=7)


def test_a_ratio_is_taken_inside_a_round():
    measured = Measured({A: [1.0, 10.0, 3.0], B: [2.0, 20.0, 1.5]})
    assert measured.ratios(B, A) == [2.0, 2.0, 0.5]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([5.0], (5.0, 5.0, 5.0)), ([4.0, 1.0, 2.0, 3.0, 5.0], (2.0, 3.0, 4.0))],
)
def test_the_middle_has_quartiles(values, wanted):
    assert middle(values) == wanted


def test_every_round_has_everyone_once_and_an_order_of_its_own():
    found = list(orders([A, B, C], rounds=20, seed=3))
    assert len(found) == 20
    assert all(sorted(map(str, one)) == sorted(map(str, (A, B, C))) for one in found)
    assert len(set(found)) == 6
    assert found == list(orders([A, B, C], rounds=20, seed=3))
    assert found != list(orders([A, B, C], rounds=20, seed=4))


@pytest.mark.parametrize(
    ("seconds", "calls"), [(1.0, 1), (0.2, 2), (0.1, 3), (0.0, MOST_CALLS), (1e-6, MOST_CALLS)]
)
def test_short_calls_are_made_more_often(seconds, calls):
    assert calls_of(seconds, burst_s=0.3) == calls


def test_all_are_measured_in_every_round_on_inputs_of_their_own():
    here, beside = Scripted({"a": 0.1, "b": 0.2}), Scripted({"a": 0.4})
    measured = measure({TUNED: here, SHIPPED: beside}, rounds=5, seed=0, burst_s=0.3)
    assert {one: len(times) for one, times in measured.seconds.items()} == {A: 5, B: 5, C: 5}
    assert measured.calls == {A: 3, B: 2, C: 1}
    assert measured.peak_bytes[A] == 7
    assert set(measured.absent) == {Contender("gone"), Contender("gone", SHIPPED)}
    rounds = [first for name, first, _ in here.asked if name == "a"][1:]
    assert rounds == [2 + 6 * index for index in range(WARM_ROUNDS + 5)]
    assert rounds == [first for name, first, _ in here.asked if name == "b"][1:]


def test_a_machine_that_slows_down_moves_no_ratio():
    here = Scripted({"a": 0.1, "b": 0.2})
    measured = measure({TUNED: here}, rounds=30, seed=0, burst_s=0.1)
    assert measured.seconds[A][-1] > 2 * measured.seconds[A][0]
    assert middle(measured.ratios(B, A))[1] == pytest.approx(2.0, rel=0.1)
