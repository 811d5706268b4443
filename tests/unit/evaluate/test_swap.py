import random

import pytest
from eval_items import item, pictures

from uni_moe.evaluate.swap import derangement


def shas(one):
    return [ref.sha256 for ref in one.media]


@pytest.mark.parametrize("count", [2, 3, 5, 20])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_item_gets_the_media_of_one_other_and_no_media_are_used_twice(count, seed):
    items = pictures([f"thing {i}" for i in range(count)])
    partners = derangement(items, seed)
    assert set(partners) == {one.key for one in items}
    assert {other.key for other in partners.values()} == set(partners)
    assert all(other.key != key for key, other in partners.items())


def least_collisions(counts):
    """Return how many items cannot get other bytes, whatever the permutation."""
    return max(0, 2 * max(counts) - sum(counts))


def test_equal_bytes_are_avoided_wherever_a_permutation_can():
    dice = random.Random(0)
    for seed in range(100):
        counts = [dice.randint(1, 4) for _ in range(dice.randint(1, 5))]
        items = [
            item(f"{content}-{copy}", media=[("image", f"{content}")])
            for content, copies in enumerate(counts)
            for copy in range(copies)
        ]
        dice.shuffle(items)
        partners = derangement(items, seed)
        own = {one.key: shas(one) for one in items}
        assert all(shas(other) != own[key] for key, other in partners.items())
        assert len(items) - len(partners) == least_collisions(counts)
        assert len({other.key for other in partners.values()}) == len(partners)


def test_partners_share_the_task_and_the_kinds_of_media():
    items = [
        item(f"{task}-{kinds}-{i}", task=task, media=[(kind, f"{task}{i}") for kind in kinds])
        for task in ("a", "b")
        for kinds in (("speech",), ("image", "speech"))
        for i in range(3)
    ]
    own = {one.key: one for one in items}
    partners = derangement(items, 0)
    assert len(partners) == len(items)
    for key, other in partners.items():
        assert other.task == own[key].task
        assert [r.kind for r in other.media] == [r.kind for r in own[key].media]


def test_all_media_of_an_item_come_from_one_other_item():
    items = [item(f"{i}", media=[("image", f"p{i}"), ("speech", f"s{i}")]) for i in range(6)]
    for other in derangement(items, 3).values():
        picture, voice = shas(other)
        assert picture[-1] == voice[-1]


@pytest.mark.parametrize("seed", range(20))
def test_no_part_stays_where_pictures_and_voices_recur(seed):
    items = [
        item(f"{i:02d}", media=[("image", f"p{i % 7}"), ("speech", f"s{i % 5}")]) for i in range(35)
    ]
    partners = derangement(items, seed)
    assert {other.key for other in partners.values()} == {one.key for one in items}
    for one in items:
        assert not set(shas(one)) & set(shas(partners[one.key]))


def test_a_part_stays_where_all_items_have_it():
    items = [item(f"{i}", media=[("image", "p"), ("speech", f"s{i}")]) for i in range(4)]
    partners = derangement(items, 0)
    assert len(partners) == 4
    assert all(shas(other)[1] != f"sha-s{key[-1]}" for key, other in partners.items())


def test_partners_share_the_group_where_it_has_items_enough():
    items = [
        item(f"{group}{i}", group=group, media=[("image", f"{group}{i}")])
        for group, count in (("color", 4), ("shape", 1), ("size", 3))
        for i in range(count)
    ]
    own = {one.key: one.group for one in items}
    pairs = {(own[key], other.group) for key, other in derangement(items, 0).items()}
    assert ("color", "color") in pairs
    assert not pairs & {("color", "shape"), ("color", "size")}
    assert len(derangement(items, 0)) == len(items)


def test_a_lone_last_group_joins_the_one_before():
    items = [
        *(item(f"a{i}", group="a", media=[("image", f"a{i}")]) for i in range(2)),
        item("b", group="b", media=[("image", "b")]),
    ]
    assert len(derangement(items, 0)) == 3


def test_an_item_alone_or_among_copies_is_left_out():
    assert derangement([item("x", media=[("image", "x")])], 0) == {}
    assert derangement([item(f"{i}", media=[("image", "x")]) for i in range(3)], 0) == {}
    assert derangement([], 0) == {}


def test_the_seed_and_not_the_order_of_the_items_decides():
    items = pictures([f"thing {i}" for i in range(10)])
    assert derangement(items, 1) == derangement(items[::-1], 1)
    assert derangement(items, 1) != derangement(items, 2)


def test_a_group_of_two_exchanges_within_itself():
    items = [
        item(f"{group}{i}", group=group, media=[("image", f"{group}{i}")])
        for group in ("a", "b")
        for i in range(2)
    ]
    own = {one.key: one.group for one in items}
    assert all(own[key] == other.group for key, other in derangement(items, 0).items())
