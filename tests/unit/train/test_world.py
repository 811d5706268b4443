"""What ranks tell each other before they train."""

import time

import pytest

from benchmarks.on_ranks import on_ranks
from uni_moe.errors import StageError
from uni_moe.launch import here
from uni_moe.machine import Machine
from uni_moe.train.world import join, leave, patient, same_on_all


def compared(items):
    """Compare facts of which the second rank holds others, where an item says so."""
    join(60.0)
    for item in items:
        yield item, None
        stage = 2 if item == "another profile" and here().rank == 1 else 1
        try:
            same_on_all({"machine.yaml": Machine(zero_stage=stage).spread, "the code": "ab"})
        except StageError as error:
            yield item, str(error)
        else:
            yield item, "the same"
    leave()


def test_ranks_that_would_not_train_the_same_are_all_told():
    items = ["one profile", "another profile", "one profile"]
    same, other, again = on_ranks(compared, items, patience_s=60.0)
    assert same == again == ("the same", "the same")
    assert other[0] == other[1]
    assert "zero_stage 2, expert_parallel 1" in other[0]
    assert "on rank 1, processes 1, nodes 1, zero_stage 1" in other[0]
    assert "the code" not in other[0]
    assert "remedy: let all nodes work in one shared workspace" in other[0]


def writing(items):
    """Let the first rank write for longer than a rank waits for another; it dies if asked to."""
    join(2.0)
    others = patient()
    for item in items:
        yield item, None
        if here().is_first:
            time.sleep(4.0)
        try:
            leave(others)
        except StageError as error:
            yield item, error.what
        else:
            yield item, "stayed"


def test_other_ranks_stay_as_long_as_the_first_one_writes():
    assert on_ranks(writing, ["a"], patience_s=60.0) == [("stayed", "stayed")]


def test_one_process_trains_as_it_is_told():
    same_on_all({"machine.yaml": "any"})


@pytest.mark.parametrize("changes", [{"zero_stage": 1}, {"processes": 2}, {"nodes": 2}])
def test_a_profile_that_spreads_otherwise_is_another(changes):
    assert Machine(**changes).spread != Machine().spread


def test_a_profile_may_differ_in_what_spreads_nothing():
    assert Machine(patience_s=1.0, last_states=9).spread == Machine().spread
