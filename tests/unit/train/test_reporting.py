"""One report from the shares of all ranks."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests.unit.train.reports import routed, seen
from uni_moe.errors import StageError
from uni_moe.train.batches import MicroBatch, StepLoss
from uni_moe.train.reporting import joined, memory_held, share_of, together


def micro(draws, losses, *, routing=None, **more):
    """Return a micro-batch and what was computed of it."""
    tokens = [one.tokens for one in draws]
    by_draw = torch.tensor([losses, tokens], dtype=torch.float32).T.reshape(-1, 2)
    batch = MicroBatch({}, float(sum(tokens)), len(draws), tuple(draws), positions=10 * len(draws))
    return batch, StepLoss(torch.tensor(0.0), by_draw=by_draw, routing=routing or {}, **more)


def share(*made):
    return share_of([batch for batch, _ in made], [found for _, found in made])


def test_draws_of_all_ranks_stand_by_slot():
    first = share(micro([seen(3, "d"), seen(0, "a")], [3.0, 0.5]), micro([seen(4, "e")], [4.0]))
    second = share(micro([seen(1, "b", tokens=2)], [1.0]), micro([], []))
    found = joined([first, second])
    assert [(rank, one.slot) for rank, one in found.seen] == [(0, 0), (1, 1), (0, 3), (0, 4)]
    assert found.by_draw == ((0.5, 4), (1.0, 2), (3.0, 4), (4.0, 4))
    assert (found.draws, found.positions) == (4, 40)


def test_a_draw_learned_from_by_other_tokens_than_its_ledger_says_is_found():
    batch, found = micro([seen(0, "a", tokens=3), seen(1, "b", tokens=2)], [1.0, 1.0])
    found.by_draw[1, 1] = 1
    with pytest.raises(StageError, match=r"cats/b \(slot 1\): 2 said, 1 learned"):
        joined([share((batch, found))])


def test_routing_adds_up_over_micro_batches_and_ranks():
    one, two = routed([6, 2, 2]), routed([1, 4, 5], kind="text")
    first = share(
        micro([seen(0, "a")], [1.0], routing={0: one, 2: two}),
        micro([seen(1, "b")], [1.0], routing={0: two, 2: two}),
    )
    second = share(micro([], []))  # a rank that had nothing to route
    found = joined([first, second, first]).routing
    assert torch.equal(found[0].table_MX, 2 * (one.table_MX + two.table_MX))
    assert torch.equal(found[2].table_MX, 4 * two.table_MX)


def test_shares_of_the_losses_beside_the_next_tokens_add_up():
    made = [
        micro([seen(0, "a", tokens=3)], [1.0], auxiliary={"balance": torch.tensor(0.75)}),
        micro([seen(1, "b", tokens=1)], [1.0], auxiliary={"balance": torch.tensor(0.5)}),
        micro([], [], auxiliary={}),
    ]
    assert joined([share(*made)]).auxiliary == {"balance": 1.25}
    assert joined([share(made[0]), share(made[1]), share(made[2])]).auxiliary == {"balance": 1.25}


def test_a_process_knows_its_memory():
    block = torch.ones(8_000_000)  # 32 MB
    found = memory_held()
    assert found["memory/peak_bytes"] > block.nbytes
    assert 0 < found["memory/bytes"] <= found["memory/peak_bytes"] * 1.01


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process's own peak")
def test_a_process_that_a_large_one_starts_holds_what_it_holds_itself():
    block = torch.ones(100_000_000)  # 400 MB, of the starter
    line = "from uni_moe.train.reporting import memory_held as m; print(m()['memory/peak_bytes'])"
    said = subprocess.run([sys.executable, "-c", line], capture_output=True, check=True).stdout
    assert 0 < float(said) < memory_held()["memory/bytes"] - block.nbytes / 2


def test_of_ranks_the_one_tells_that_waited_longest_and_the_one_that_holds_most():
    batch, found = micro([], [])
    ready = share_of([replace(batch, encoded_s=2.0)], [found], fetched_s=2.5)
    late = share_of([batch], [found], fetched_s=1.0)
    assert (ready.waited_s, ready.encoded_s, late.waited_s) == (0.5, 2.0, 1.0)
    told = joined(
        [
            replace(ready, memory={"memory/bytes": 5.0, "memory/peak_bytes": 6.0}),
            replace(late, memory={"memory/bytes": 4.0, "memory/peak_bytes": 9.0}),
        ]
    )
    assert (told.waited_s, told.encoded_s) == (1.0, 2.0)
    assert told.memory == {"memory/bytes": 5.0, "memory/peak_bytes": 9.0}


def test_a_learner_without_named_draws_is_counted():
    batch = MicroBatch({}, 1.0, 8)
    found = StepLoss(torch.tensor(2.0), {"caption": (6.0, 3.0)})
    told = together([batch], [found])
    assert (told.draws, told.seen, told.by_draw, told.routing) == (8, (), (), {})
    assert told.parts == {"caption": 2.0}
