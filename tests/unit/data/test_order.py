import random
from collections import Counter
from fractions import Fraction

import pytest

from uni_moe.data.order import Order
from uni_moe.errors import DataError

GROUPS = {
    "image": [f"i{n}" for n in range(11)],
    "text": [f"t{n}" for n in range(5)],
    "speech": [f"s{n}" for n in range(7)],
}
BLEND = {"image": 1.0, "text": 0.5, "speech": 2.0}


def draws(order, count, batch_size=4):
    return [draw for step in range(count // batch_size) for draw in order.batch(step, batch_size)]


def test_the_order_is_a_function_of_its_arguments():
    one, two = Order(GROUPS, BLEND, 7), Order(GROUPS, BLEND, 7)
    assert draws(one, 400) == draws(two, 400)
    assert draws(one, 400) != draws(Order(GROUPS, BLEND, 8), 400)


def test_the_given_order_of_keys_and_modalities_does_not_matter():
    shuffled = {m: random.Random(0).sample(keys, len(keys)) for m, keys in reversed(GROUPS.items())}
    turned = dict(reversed(BLEND.items()))
    assert draws(Order(shuffled, turned, 7), 400) == draws(Order(GROUPS, BLEND, 7), 400)


@pytest.mark.parametrize("step", [0, 1, 17, 100_000, 10**12])
def test_a_restart_at_any_step_meets_the_same_batch(step):
    lived = Order(GROUPS, BLEND, 7)
    for earlier in range(max(0, step - 50), step):
        lived.batch(earlier, 4)
    assert lived.batch(step, 4) == Order(GROUPS, BLEND, 7).batch(step, 4)


def test_workers_that_share_the_steps_see_what_one_sees():
    alone = [Order(GROUPS, BLEND, 7).batch(step, 4) for step in range(30)]
    workers = [Order(GROUPS, BLEND, 7) for _ in range(3)]
    assert [workers[step % 3].batch(step, 4) for step in reversed(range(30))] == alone[::-1]


def test_the_batch_size_cuts_the_same_order():
    order = Order(GROUPS, BLEND, 7)
    assert draws(order, 400, 4) == draws(order, 400, 20)


@pytest.mark.parametrize(
    "blend",
    [
        {"image": 1.0},
        {"image": 1.0, "text": 1.0},
        {"image": 1.0, "text": 0.5, "speech": 2.0},
        {"image": 0.1, "text": 0.2, "speech": 0.7},
        {"image": 3.7, "text": 0.013, "speech": 1.1},
        {"image": 2, "text": 3, "speech": 4},
        {"image": 1.0e-3, "text": 1, "speech": 1},
    ],
)
def test_the_blend_is_kept_at_every_moment(blend):
    order = Order(GROUPS, blend, 3)
    total = sum(Fraction(str(weight)) for weight in blend.values())
    shares = {name: Fraction(str(weight)) / total for name, weight in blend.items()}
    slack = max(2, 2 + float(order._block_size * max(shares.values())))
    seen = Counter()
    for position in range(5000):
        seen[order.at(position)[0]] += 1
        assert all(abs(seen[m] - (position + 1) * shares[m]) <= slack for m in blend)
    whole = 1000 * order._block_size
    assert sum(order._drawn(1000)) == whole
    assert all(
        abs(n - whole * shares[m]) < 1
        for m, n in zip(sorted(blend), order._drawn(1000), strict=True)
    )


def test_blocks_are_never_short():
    for seed in range(40):
        chance = random.Random(seed)
        blend = {m: round(chance.uniform(0.01, 3), 2) for m in GROUPS}
        order = Order(GROUPS, blend, seed)
        for block in range(200):
            parts = zip(order._drawn(block), order._drawn(block + 1), strict=True)
            assert all(before <= after for before, after in parts)
            assert len(order._block(block)) == order._block_size


def test_each_epoch_of_a_modality_is_a_fresh_permutation():
    order = Order(GROUPS, BLEND, 7)
    keys = [key for modality, key in draws(order, 4000) if modality == "speech"]
    epochs = [keys[i : i + 7] for i in range(0, len(keys) - 7, 7)]
    assert all(sorted(epoch) == sorted(GROUPS["speech"]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 0.9 * len(epochs)


def test_a_removed_key_leaves_the_others_in_their_order():
    fewer = GROUPS | {"image": [key for key in GROUPS["image"] if key != "i4"]}
    before, after = Order(GROUPS, BLEND, 7), Order(fewer, BLEND, 7)
    for epoch in range(20):
        left = [key for key in before._epoch("image", epoch) if key != "i4"]
        assert list(after._epoch("image", epoch)) == left


def test_a_removed_key_leaves_the_other_modalities_alone():
    fewer = GROUPS | {"image": GROUPS["image"][1:]}
    before, after = draws(Order(GROUPS, BLEND, 7), 2000), draws(Order(fewer, BLEND, 7), 2000)
    assert [m for m, _ in before] == [m for m, _ in after]
    assert [draw for draw in before if draw[0] != "image"] == [
        draw for draw in after if draw[0] != "image"
    ]


def test_every_place_is_equally_likely():
    keys = [f"k{n}" for n in range(4)]
    order = Order({"image": keys}, {"image": 1.0}, 1)
    first = Counter(order._epoch("image", epoch)[0] for epoch in range(4000))
    assert all(abs(first[key] - 1000) < 120 for key in keys)  # four standard deviations


def test_modalities_outside_the_blend_are_not_drawn():
    assert {m for m, _ in draws(Order(GROUPS, {"text": 1.0}, 7), 100)} == {"text"}


@pytest.mark.parametrize("groups", [{}, {"image": []}])
def test_a_blend_without_samples_is_an_error(groups):
    with pytest.raises(DataError, match="image"):
        Order(groups, {"image": 1.0}, 7)
