"""Two processes with one list of work: who waits for ever, or dies, is told by where it was."""

import os
import time

import pytest

from benchmarks.on_ranks import on_ranks
from uni_moe.errors import StageError
from uni_moe.launch import here


def industrious(items):
    """Find something of every item, as one of two."""
    for item in items:
        yield item, None
        yield item, (item, here().rank, here().size)


def test_what_both_ranks_found_is_told_item_by_item():
    assert on_ranks(industrious, [5, 6], patience_s=60.0) == [
        ((5, 0, 2), (5, 1, 2)),
        ((6, 0, 2), (6, 1, 2)),
    ]


def forgetful(items):
    """Let the second rank wait for ever at the third item."""
    for item in items:
        yield item, None
        if item == 32 and here().rank == 1:
            time.sleep(600)
        yield item, "done"


def mortal(items):
    """Let the first rank die at the second item."""
    for item in items:
        yield item, None
        if item == 31 and here().rank == 0:
            os._exit(3)
        yield item, "done"


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (forgetful, "say nothing for 2 s: rank 0 at 33, rank 1 at 32"),
        (mortal, "ended before their work was done: rank 0 at 31"),
    ],
)
def test_a_rank_that_hangs_or_dies_is_told_with_the_seed_it_was_at(work, said):
    with pytest.raises(StageError, match=said):
        on_ranks(work, [30, 31, 32, 33], patience_s=2.0)
