"""A memory of bounded size against a list that is kept by hand."""

import random

from uni_moe.recent import Recent


def test_what_was_used_longest_ago_goes_first():
    recent = Recent(3)
    for key in "abc":
        recent.put(key, key.upper(), 1)
    assert recent.get("a") == "A"
    recent.put("d", "D", 1)
    assert [recent.get(key) for key in "abcd"] == ["A", None, "C", "D"]


def test_a_value_larger_than_the_memory_empties_nothing():
    recent = Recent(3)
    recent.put("a", "A", 1)
    recent.put("b", "B", 4)
    assert (recent.get("a"), recent.get("b"), len(recent), recent.size_bytes) == ("A", None, 1, 1)


def test_a_memory_of_no_bytes_holds_nothing():
    recent = Recent(0)
    recent.put("a", "A", 1)
    assert recent.get("a") is None


def test_it_holds_what_a_list_kept_by_hand_holds():
    dice, recent, by_hand = random.Random(0), Recent(50), []
    for _ in range(3000):
        key, size = dice.randrange(12), dice.randrange(1, 20)
        if dice.random() < 0.5:
            found = next((entry for entry in by_hand if entry[0] == key), None)
            assert recent.get(key) == (found and found[1])
            if found:
                by_hand.remove(found)
                by_hand.append(found)
        else:
            by_hand = [entry for entry in by_hand if entry[0] != key]
            by_hand.append((key, (key, size), size))
            recent.put(key, (key, size), size)
            while sum(entry[2] for entry in by_hand) > 50:
                by_hand.pop(0)
        assert recent.size_bytes == sum(entry[2] for entry in by_hand) <= 50
        assert len(recent) == len(by_hand)
