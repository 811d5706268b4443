"""Tables of samples, packed: what goes in comes out, one sample or all."""

import numpy as np
import pytest

from uni_moe.registry.holdings import (
    SPAN,
    Draws,
    block_of,
    find,
    gathered,
    holder_of,
    listing,
    pack,
    pack_blocks,
    place_of,
    sample_key,
    unpack,
    unpack_blocks,
)


def by_hand(numbers, steps, tokens):
    found = {}
    for number, step, count in zip(numbers, steps, tokens, strict=True):
        one = found.setdefault(number, Draws(0, step, step, 0))
        first, last = min(one.first_step, step), max(one.last_step, step)
        found[number] = Draws(one.draws + 1, first, last, one.tokens + count)
    return found


@pytest.mark.parametrize(("samples", "draws"), [(1, 1), (300, 40), (700, 5000), (SPAN, 4000)])
@pytest.mark.parametrize("largest", [3, 200, 70_000])
def test_draws_are_found_as_they_were_counted(samples, draws, largest):
    dice = np.random.default_rng(samples + draws)
    numbers = dice.integers(0, samples, draws)
    steps, tokens = dice.integers(1, largest, (2, draws))
    wanted = by_hand(numbers.tolist(), steps.tolist(), tokens.tolist())
    rows = dict(pack(gathered(numbers, steps, tokens)))
    for number in range(samples):
        data = rows.get(number // SPAN)
        assert (find(data, number % SPAN) if data else None) == wanted.get(number)
    whole = {}
    for block, data in rows.items():
        held = unpack(block, data)
        told = zip(*(column.tolist() for column in held.columns), strict=True)
        whole |= dict(zip(held.numbers.tolist(), (Draws(*one) for one in told), strict=True))
    assert whole == wanted


def test_a_list_of_samples_takes_few_bytes():
    rows = list(pack(listing(np.arange(10 * SPAN))))
    assert len(rows) == 10
    assert sum(len(data) for _, data in rows) < 250


def test_nothing_packs_to_nothing():
    nothing = np.zeros(0, np.int64)
    assert list(pack(gathered(nothing, nothing, nothing))) == []
    assert unpack_blocks(pack_blocks([])) == []


def test_places_and_blocks_come_back():
    place = place_of(70_000, 12_345)
    assert (block_of(place), holder_of(place)) == (70_000, 12_345)
    assert unpack_blocks(pack_blocks([0, 5, 6, 900])) == [0, 5, 6, 900]


def test_a_caption_counts_for_its_sample():
    assert sample_key("mine/1#caption") == sample_key("mine/1") == "mine/1"
