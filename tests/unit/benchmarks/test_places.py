"""The process beside this one: what it runs, and how it fails."""

import os

import pytest
import torch

from benchmarks.places import Apart, Clock, Here, Lacking, places
from benchmarks.rounds import OURS, SHIPPED, TUNED
from uni_moe.errors import StageError

CLOCK = Clock(threads=1, device="cpu")


def runs():
    def sleepless(_):
        return lambda: sum(range(20_000))

    def broken(_):
        return lambda: os._exit(3)

    return {"count": sleepless, "broken": broken, "gone": Lacking("it is not installed")}


def test_a_process_apart_measures_and_tells_when_it_is_gone():
    apart = Apart(runs, CLOCK)
    try:
        assert apart.names == ["count", "broken"]
        assert apart.absent == {"gone": "it is not installed"}
        assert 0 < apart.burst("count", 0, 3).seconds < 1
        with pytest.raises(StageError, match="gives no answer") as error:
            apart.burst("broken", 0, 1)
        assert "ended with 3" in str(error.value)
    finally:
        apart.close()


def test_without_peers_as_shipped_there_is_no_second_process():
    with places(CLOCK, runs, None) as found:
        assert list(found) == [TUNED]
        assert SHIPPED not in found


def test_a_burst_is_its_middle_call_after_as_many_that_do_not_count():
    made, run = [], []

    def prepare(index):
        made.append(index)
        sum(range(3_000_000))  # an input is made before the clock starts
        long = 5_000_000 if index in (6, 7, 8, 10) else 10

        def call():
            assert len(made) == 6
            run.append(index)
            sum(range(long))

        return call

    burst = Here({"one": prepare}, CLOCK).burst("one", 6, 3)
    assert made == run == [6, 7, 8, 9, 10, 11]
    assert burst.seconds < 0.005
    assert burst.peak_bytes is None


def test_an_accelerator_is_waited_for_before_and_after_every_call_that_counts(monkeypatch):
    """There is none here: torch's own words to it are written down."""
    told, held = [], iter([100])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: told.append("wait"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: told.append("reset"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: next(held))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 130)
    here = Here({"one": lambda index: lambda: told.append(index)}, Clock(1, "cuda"))
    assert here.burst("one", 0, 2).peak_bytes == 30
    assert told == [0, 1, "reset", "wait", 2, "wait", 3, "wait"]


def test_ours_alone_pays_for_determinism():
    seen = []

    def prepare(_):
        return lambda: seen.append(torch.are_deterministic_algorithms_enabled())

    here = Here({OURS: prepare, "peer": prepare}, CLOCK)
    here.burst("peer", 0, 1)
    here.burst(OURS, 0, 1)
    assert seen == [False, False, True, True]


@pytest.mark.parametrize(
    ("threads", "device", "said"),
    [(1, "cpu", "CPU time"), (2, "cpu", "wall"), (1, "cuda", "wall")],
)
def test_cpu_time_is_taken_where_one_thread_computes_alone(threads, device, said):
    assert str(Clock(threads, device)).startswith(said)
