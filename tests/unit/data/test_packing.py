"""Plans of packed steps: nothing is lost, nobody waits, little is computed in vain."""

import random
from itertools import chain

import pytest

from uni_moe.data.order import Order
from uni_moe.data.packing import plan, used
from uni_moe.data.steps import Steps
from uni_moe.model.segments import groups_of


def lengths_of(seed, count, longest):
    """Return skewed lengths: most conversations are short, a few are very long."""
    chance = random.Random(seed)
    return [min(longest, 8 + int(chance.lognormvariate(3.5, 1.1))) for _ in range(count)]


CASES = [
    (seed, count, budget, rows, ranks)
    for seed, (count, budget, rows, ranks) in enumerate(
        [
            *((32, 512, 1, 1), (32, 512, 1, 2), (32, None, None, 1), (32, None, None, 2)),
            *((33, None, 4, 3), (7, 512, 1, 4), (1, 512, 1, 2), (1, None, None, 3), (0, 512, 1, 2)),
            *((0, None, None, 1), (200, 700, 3, 2), (64, 512, None, 2), (500, 4096, 1, 8)),
        ]
    )
]


@pytest.mark.parametrize(("seed", "count", "budget", "rows", "ranks"), CASES)
def test_a_packing_holds_every_draw_once_and_keeps_its_limits(seed, count, budget, rows, ranks):
    lengths = lengths_of(seed, count, 500)
    found = plan(lengths, row_positions=budget, rows=rows, ranks=ranks)
    assert found == plan(lengths, row_positions=budget, rows=rows, ranks=ranks)
    assert len(found) == ranks
    assert len({len(share) for share in found}) == 1
    assert len(found[0]) >= 1
    flat = [row for share in found for batch in share for row in batch]
    assert sorted(draw for row in flat for draw in row.draws) == list(range(count))
    for row in flat:
        assert row.positions == sum(lengths[draw] for draw in row.draws)
        assert row.positions <= (budget or 500)
        assert list(row.draws) == sorted(row.draws)
        assert budget is not None or len(row.draws) == 1
    for share in found:
        for batch in share:
            assert len(batch) <= (rows or count)
            assert list(batch) == sorted(batch, key=lambda row: row.draws)


def test_a_packing_takes_few_rows():
    for seed in range(60):
        lengths = lengths_of(seed, 64, 512)
        (share,) = plan(lengths, row_positions=512, rows=1)
        assert len(share) <= -(-sum(lengths) // 512) + 1


def test_a_packing_that_cannot_be_level_is_tight():
    lengths = [6, 6, 4, 4, 5, 5]  # level: 6 5 4, and the rest has no room
    (share,) = plan(lengths, row_positions=10, rows=1)
    assert sorted(row.positions for batch in share for row in batch) == [10, 10, 10]


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_a_packing_leaves_no_rank_waiting(ranks):
    for seed in range(40):
        lengths = lengths_of(seed, 40 * ranks, 512)
        found = plan(lengths, row_positions=1024, rows=1, ranks=ranks)
        for at in range(len(found[0])):  # what the ranks compute at one time
            sizes = [sum(row.positions for row in share[at]) for share in found]
            assert min(sizes) >= 0.9 * max(sizes)


def test_without_packing_one_process_computes_a_step_at_once_in_its_order():
    (share,) = plan([5, 9, 2, 7])
    assert [[row.draws for row in batch] for batch in share] == [[(0,), (1,), (2,), (3,)]]


def test_rows_computed_together_are_of_like_lengths_in_a_packing_and_without():
    (share,) = plan([5, 90, 2, 70, 6, 80], rows=3)
    assert [[row.positions for row in batch] for batch in share] == [[90, 70, 80], [5, 2, 6]]


KEYS = {name: [f"{name}/{n}" for n in range(400)] for name in ("text", "image", "speech")}
BLEND = {"text": 1.0, "image": 1.0, "speech": 0.3}


def simulated(budget, rows, ranks, **cut):
    """Return the shares of what a phase of 300 steps computes, and attends, that hold something.

    The blend is skewed. Without a budget attention computes what all layers do.
    """
    chance = random.Random(5)
    length = {}
    for name, keys in KEYS.items():
        for key in keys:
            spread = {"text": 1.4, "image": 0.5, "speech": 0.9}[name]
            base = {"text": 3.0, "image": 4.2, "speech": 5.0}[name]
            length[key] = min(1000, 6 + int(chance.lognormvariate(base, spread)))
    steps = Steps(Order(KEYS, BLEND, 3), lambda _, key: length[key], **cut)
    kept = computed = attended = 0
    for step in range(300):
        lengths = [length[draw.key] for draw in steps.draws(step)]
        for batch in chain(*plan(lengths, row_positions=budget, rows=rows, ranks=ranks)):
            found = used([batch])
            kept, computed = kept + found[0], computed + found[1]
            attended += attended_by(batch, lengths)
    return kept / computed, kept / attended


def attended_by(batch, lengths):
    """Return the places that attention computes: conversations and gaps, in groups."""
    longest = max((row.positions for row in batch), default=0)
    spans = [lengths[draw] for row in batch for draw in row.draws]
    spans += [longest - row.positions for row in batch if row.positions < longest]
    return sum(count * most for count, most in groups_of(spans))


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("cut", [{"batch_size": 32}, {"batch_positions": 4096}])
def test_packing_computes_little_in_vain_over_a_whole_phase_of_a_skewed_blend(cut, ranks):
    padded, _ = simulated(None, None, ranks, **cut)
    packed = simulated(1024, 1, ranks, **cut)
    two_rows = simulated(1024, 2, ranks, **cut)
    assert padded < 0.25
    assert two_rows[0] >= 0.97
    assert min(packed[1], two_rows[1]) >= 0.9  # of attention alone, a small part of the work
