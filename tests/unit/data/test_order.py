import random
from collections import Counter
from fractions import Fraction

import pytest

from uni_moe.data.blend import Turns
from uni_moe.data.order import Order
from uni_moe.data.steps import Steps
from uni_moe.errors import DataError

GROUPS = {
    "image": [f"i{n}" for n in range(11)],
    "text": [f"t{n}" for n in range(5)],
    "speech": [f"s{n}" for n in range(7)],
}
BLEND = {"image": 1.0, "text": 0.5, "speech": 2.0}


def draws(order, count):
    return [draw[1:] for draw in order.draws(0, count)]


def batch(order, step, batch_size=4):
    return Steps(order, len, batch_size=batch_size).draws(step)


def test_the_order_is_a_function_of_its_arguments():
    one, two = Order(GROUPS, BLEND, 7), Order(GROUPS, BLEND, 7)
    assert draws(one, 400) == draws(two, 400)
    assert draws(one, 400) != draws(Order(GROUPS, BLEND, 8), 400)


def test_two_phases_meet_their_examples_in_different_orders():
    keys = {"text": [f"t{n}" for n in range(40)]}
    phases = ("", "tune", "align@image", "experts@image")
    orders = [tuple(draws(Order(keys, {"text": 1.0}, 7, phase=phase), 40)) for phase in phases]
    assert len(set(orders)) == len(phases)
    blends = [
        tuple(name for name, _ in draws(Order(GROUPS, BLEND, 7, phase=phase), 40))
        for phase in phases
    ]
    assert len(set(blends)) == len(phases)


def test_the_given_order_of_keys_and_modalities_does_not_matter():
    shuffled = {m: random.Random(0).sample(keys, len(keys)) for m, keys in reversed(GROUPS.items())}
    turned = dict(reversed(BLEND.items()))
    assert draws(Order(shuffled, turned, 7), 400) == draws(Order(GROUPS, BLEND, 7), 400)


@pytest.mark.parametrize("step", [0, 1, 17, 100_000, 10**12])
def test_a_restart_at_any_step_meets_the_same_batch(step):
    lived = Order(GROUPS, BLEND, 7)
    for earlier in range(max(0, step - 50), step):
        batch(lived, earlier)
    assert batch(lived, step) == batch(Order(GROUPS, BLEND, 7), step)


def test_workers_that_share_the_steps_see_what_one_sees():
    alone = [batch(Order(GROUPS, BLEND, 7), step) for step in range(30)]
    workers = [Order(GROUPS, BLEND, 7) for _ in range(3)]
    assert [batch(workers[step % 3], step) for step in reversed(range(30))] == alone[::-1]


def test_the_batch_size_cuts_the_same_order():
    order = Order(GROUPS, BLEND, 7)
    found = [
        [draw[1:] for step in range(400 // size) for draw in batch(order, step, size)]
        for size in (4, 20)
    ]
    assert found[0] == found[1] == draws(order, 400)


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
        {"text": 0.4, "image": 6.25, "speech": 2.09},
    ],
)
def test_the_blend_is_kept_at_every_moment(blend):
    order, turns = Order(GROUPS, blend, 3), Turns(blend, 3, "", "blend")
    total = sum(Fraction(str(weight)) for weight in blend.values())
    shares = {name: Fraction(str(weight)) / total for name, weight in blend.items()}
    slack = {m: 1 + turns.cycle_size * share * (1 - share) for m, share in shares.items()}
    seen = Counter()
    for position in range(5000):
        seen[order.at(position)[0]] += 1
        assert all(abs(seen[m] - (position + 1) * shares[m]) < slack[m] for m in blend)
    whole = 1000 * turns.cycle_size
    assert sum(turns.taken(1000)) == whole
    assert all(
        abs(n - whole * shares[m]) < 1 for m, n in zip(turns.names, turns.taken(1000), strict=True)
    )


def test_cycles_of_turns_are_never_short():
    for seed in range(40):
        chance = random.Random(seed)
        turns = Turns({m: round(chance.uniform(0.01, 3), 2) for m in GROUPS}, seed)
        for cycle in range(200):
            parts = zip(turns.taken(cycle), turns.taken(cycle + 1), strict=True)
            assert all(before <= after for before, after in parts)
            assert len(turns.cycle(cycle)) == turns.cycle_size


def test_each_epoch_of_a_modality_is_a_fresh_permutation():
    order = Order(GROUPS, BLEND, 7)
    keys = [key for modality, key in draws(order, 4000) if modality == "speech"]
    epochs = [keys[i : i + 7] for i in range(0, len(keys) - 7, 7)]
    assert all(sorted(epoch) == sorted(GROUPS["speech"]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 0.9 * len(epochs)


def without(*gone):
    left = {m: [key for key in keys if key not in gone] for m, keys in GROUPS.items()}
    return left, {m: [key for key in keys if key in gone] for m, keys in GROUPS.items()}


@pytest.mark.parametrize("gone", [("i4",), ("i0", "s3", "s6"), GROUPS["image"][1:]])
def test_a_removed_key_leaves_a_hole_and_every_other_draw_in_its_step_and_slot(gone):
    left, holes = without(*gone)
    before, after = Order(GROUPS, BLEND, 7), Order(left, BLEND, 7, holes=holes)
    for step in range(700):  # many epochs of each modality
        whole = batch(before, step)
        assert batch(after, step) == [draw for draw in whole if draw.key not in gone]
        assert [draw.slot for draw in whole] == [0, 1, 2, 3]


def test_a_removed_key_keeps_its_length_where_steps_are_cut_by_positions():
    chance = random.Random(1)
    length = {key: chance.randint(5, 60) for keys in GROUPS.values() for key in keys}
    left, holes = without("i4", "t1")
    cut = [
        Steps(order, lambda _, key: length[key], batch_positions=128)
        for order in (Order(GROUPS, BLEND, 7), Order(left, BLEND, 7, holes=holes))
    ]
    for step in range(300):
        whole = cut[0].draws(step)
        assert cut[1].draws(step) == [draw for draw in whole if draw.key not in ("i4", "t1")]


def test_a_key_without_a_hole_moves_the_others():
    left, _ = without("i4")
    before, after = Order(GROUPS, BLEND, 7), Order(left, BLEND, 7)
    assert [d for d in draws(before, 400) if d[1] != "i4"] != draws(after, 400)


def test_a_removed_key_leaves_the_other_modalities_alone_even_without_a_hole():
    fewer = GROUPS | {"image": GROUPS["image"][1:]}
    before, after = draws(Order(GROUPS, BLEND, 7), 2000), draws(Order(fewer, BLEND, 7), 2000)
    assert [m for m, _ in before] == [m for m, _ in after]
    assert [draw for draw in before if draw[0] != "image"] == [
        draw for draw in after if draw[0] != "image"
    ]


def test_every_place_is_equally_likely():
    keys = [f"k{n}" for n in range(4)]
    order = Order({"image": keys}, {"image": 1.0}, 1)
    first = Counter(order.at(4 * epoch)[1] for epoch in range(4000))
    assert all(abs(first[key] - 1000) < 120 for key in keys)  # four standard deviations


def test_modalities_outside_the_blend_are_not_drawn():
    assert {m for m, _ in draws(Order(GROUPS, {"text": 1.0}, 7), 100)} == {"text"}


@pytest.mark.parametrize("groups", [{}, {"image": []}])
def test_a_blend_without_samples_is_an_error(groups):
    with pytest.raises(DataError, match="image"):
        Order(groups, {"image": 1.0}, 7)


def test_a_modality_of_holes_alone_is_an_error():
    with pytest.raises(DataError, match="image"):
        Order({"image": []}, {"image": 1.0}, 7, holes={"image": ["i0"]})


SOURCED = {
    "speech": [*(f"big/{n}" for n in range(90)), *(f"small/{n}" for n in range(10))],
    "text": [f"big/t{n}" for n in range(50)],
}
HALF = {"speech": 1.0, "text": 1.0}


def by_source(order, count, modality="speech"):
    keys = [key for name, key in draws(order, count) if name == modality]
    return Counter(key.partition("/")[0] for key in keys), Counter(keys)


@pytest.mark.parametrize(
    ("sources", "share"),
    [
        ({}, 0.1),
        ({"small": 1.0, "big": 1.0}, 0.1),
        ({"small": 2.0}, 20 / 110),
        ({"big": 0.1}, 10 / 19),
    ],
)
def test_a_source_is_drawn_as_often_as_its_weight_says(sources, share):
    found, keys = by_source(Order(SOURCED, HALF, 3, sources=sources), 20_000)
    assert sum(found.values()) == 10_000
    assert found["small"] == pytest.approx(10_000 * share, abs=30)
    for source in ("small", "big"):  # within a source all are drawn equally often
        counts = [count for key, count in keys.items() if key.startswith(source)]
        assert max(counts) - min(counts) <= 2


def test_sources_of_one_weight_are_drawn_as_without_weights():
    plain = draws(Order(SOURCED, HALF, 3), 1000)
    assert draws(Order(SOURCED, HALF, 3, sources={"big": 3.0, "small": 3.0}), 1000) == plain
    assert draws(Order(SOURCED, HALF, 3, sources={"elsewhere": 3.0}), 1000) == plain


def test_a_weighed_source_leaves_other_modalities_alone():
    plain, weighed = (
        [d for d in draws(Order(SOURCED, HALF, 3, sources=sources), 1000) if d[0] == "text"]
        for sources in ({}, {"small": 4.0})
    )
    assert plain == weighed


def test_a_removed_key_of_a_weighed_source_leaves_every_other_draw_in_place():
    left = SOURCED | {"speech": [key for key in SOURCED["speech"] if key != "small/3"]}
    before = Order(SOURCED, HALF, 3, sources={"small": 2.5})
    after = Order(left, HALF, 3, sources={"small": 2.5}, holes={"speech": ["small/3"]})
    for step in range(300):
        assert batch(after, step) == [d for d in batch(before, step) if d.key != "small/3"]


def test_steps_of_positions_fill_the_budget_and_lose_no_draw():
    chance = random.Random(0)
    length = {key: chance.choice([3, 10, 40, 90]) for keys in GROUPS.values() for key in keys}
    order = Order(GROUPS, BLEND, 7)
    steps = Steps(order, lambda _, key: length[key], batch_positions=100)
    found = [steps.draws(step) for step in range(200)]
    sizes = [sum(length[draw.key] for draw in step) for step in found]
    assert max(sizes) <= 100
    for step, size in zip(found[1:], sizes, strict=False):  # the next draw would not have fitted
        assert size + length[step[0].key] > 100
    flat = [draw[1:] for step in found for draw in step]
    assert flat == draws(order, len(flat))
    again = Steps(order, lambda _, key: length[key], batch_positions=100)
    assert again.draws(150) == found[150]  # a restart there finds the same step


def test_a_draw_that_is_longer_than_the_budget_has_a_step_of_its_own():
    order = Order({"text": ["long", "short"]}, {"text": 1.0}, 0)
    steps = Steps(order, lambda _, key: 500 if key == "long" else 1, batch_positions=100)
    for step in range(20):
        keys = [draw.key for draw in steps.draws(step)]
        assert keys in (["long"], ["short"], ["short", "short"])


def test_lengths_are_asked_for_no_further_than_a_step_needs():
    asked = []

    def length(modality, key):
        asked.append((modality, key))
        return 10

    steps = Steps(Order(GROUPS, BLEND, 7), length, batch_positions=50)
    steps.draws(9)
    steps.draws(3)
    assert len(asked) == 10 * 6  # each step's draws, and the first that did not fit
