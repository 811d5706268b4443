"""The order of examples and the split of keys, as tables that must not move.

Who trained on a corpus continues on it: another order or split would be another training.
"""

import pytest

from uni_moe.config import Split
from uni_moe.data.order import Order
from uni_moe.data.split import split_of

GROUPS = {"image": ["i0", "i1", "i2"], "text": ["t0", "t1"]}


@pytest.mark.parametrize(
    ("seed", "phase", "keys"),
    [
        (0, "tune", "i0 t1 i2 i1 i0 t0 i1 t1 i2 i0 t0 i2 t1 i1 i0 i1 i2 t0"),
        (1, "tune", "t0 i0 i2 i1 i2 t1 t1 i0 i1 i0 t0 i2 t0 i1 i0 i1 t1 i2"),
        (0, "align@image", "i0 i2 t0 i1 i2 t1 i0 i1 t1 i0 i2 t0 i1 t0 i2 i1 t1 i0"),
    ],
)
def test_the_order_reads_like_this(seed, phase, keys):
    order = Order(GROUPS, {"image": 2, "text": 1.0}, seed, phase=phase)
    assert [draw.key for draw in order.draws(0, 18)] == keys.split()
    by_three = [draw for at in range(0, 18, 3) for draw in order.draws(at, at + 3)]
    assert [draw.key for draw in by_three] == keys.split()
    assert [draw.slot for draw in by_three] == [0, 1, 2] * 6


@pytest.mark.parametrize(
    ("key", "split"),
    [
        *(("a/0", "train"), ("a/1", "test"), ("b/0#x", "test"), ("b/0#y", "test")),
        *(("b/1", "validation"), ("\u00fc/1", "train")),
    ],
)
def test_keys_fall_like_this(key, split):
    assert split_of(key, Split(0.25, 0.25)) == split


def modalities(seed, block):
    order = Order({"image": ["i"], "text": ["t"]}, {"image": 1.0, "text": 1.0}, seed)
    return tuple(order.at(2 * block + place)[0] for place in range(2))


def test_seed_and_block_both_shuffle_the_modalities():
    by_block = {modalities(0, block) for block in range(12)}
    by_seed = {modalities(seed, 0) for seed in range(12)}
    assert by_block == by_seed == {("image", "text"), ("text", "image")}


def test_seed_and_epoch_both_shuffle_the_keys():
    keys = [f"k{n}" for n in range(4)]

    def epoch(seed, number):
        order = Order({"text": keys}, {"text": 1.0}, seed)
        return tuple(draw.key for draw in order.draws(4 * number, 4 * number + 4))

    assert len({epoch(0, number) for number in range(12)}) > 6
    assert len({epoch(seed, 0) for seed in range(12)}) > 6


def test_draws_are_shared_as_the_blend_says():
    groups = {name: [f"{name}{n}" for n in range(7)] for name in ("image", "text", "speech")}
    order = Order(groups, {"image": 1.0, "text": 0.5, "speech": 2.5}, 3)
    drawn = [draw.modality for draw in order.draws(0, 8000)]
    assert {name: drawn.count(name) for name in groups} == {
        "image": 2000,
        "text": 1000,
        "speech": 5000,
    }


def test_a_name_that_no_encoding_knows_has_its_place_too():
    odd = "a/\ud800"
    assert split_of(odd, Split(0.0, 0.0)) == "train"
    assert Order({"text": [odd]}, {"text": 1.0}, 0).at(3) == ("text", odd)
