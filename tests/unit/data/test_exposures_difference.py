"""Every way to tamper with a ledger is found and named."""

import random

import pytest

from uni_moe.data.exposures import LedgerEntry
from uni_moe.data.exposures_difference import first_difference

ENTRIES = [
    LedgerEntry(
        step, slot % 2, slot, f"id {step} {slot}", f"key {step} {slot}", "image", "cats", 4, 0
    )
    for step in range(1, 5)
    for slot in range(3)
]


def test_an_equal_ledger_has_no_difference_whatever_its_ranks():
    assert first_difference(iter(ENTRIES), [entry._replace(rank=9) for entry in ENTRIES]) is None
    assert first_difference([], []) is None


def without(index):
    return ENTRIES[:index] + ENTRIES[index + 1 :]


def twice(index):
    return ENTRIES[: index + 1] + ENTRIES[index:]


def swapped(a, b):
    found = list(ENTRIES)
    found[a], found[b] = found[b], found[a]
    return found


@pytest.mark.parametrize(
    ("found", "kind", "index", "said"),
    [
        (without(0), "deleted", 0, "entry 0 (step 1, slot 0, key 1 0) is missing"),
        (without(5), "deleted", 5, "entry 5 (step 2, slot 2, key 2 2) is missing"),
        (without(11), "deleted", 11, "entry 11 (step 4, slot 2, key 4 2) is missing"),
        (ENTRIES[:3] + ENTRIES[5:], "deleted", 3, "entry 3 (step 2, slot 0, key 2 0) is missing"),
        ([], "deleted", 0, "entry 0 (step 1, slot 0, key 1 0) is missing"),
        (twice(4), "added", 5, "entry 5 (step 2, slot 1, key 2 1) does not belong there"),
        (twice(11), "added", 12, "entry 12 (step 4, slot 2, key 4 2) does not belong there"),
        (swapped(4, 5), "reordered", 4, "entry 4 (step 2, slot 1, key 2 1) stands at another"),
        (swapped(2, 9), "reordered", 2, "entry 2 (step 1, slot 2, key 1 2) stands at another"),
        (
            [entry._replace(tokens=3 if entry.step == 3 else 4) for entry in ENTRIES],
            "changed",
            6,
            "entry 6 (step 3, slot 0) says tokens 3 instead of 4",
        ),
    ],
)
def test_the_first_differing_entry_of_a_ledger_is_named(found, kind, index, said):
    difference = first_difference(ENTRIES, iter(found))
    assert (difference.kind, difference.index) == (kind, index)
    assert said in difference.text()
    assert difference.to_json()["kind"] == kind


@pytest.mark.parametrize("found", [swapped(2, 3), swapped(2, 9), without(0), twice(11), []])
def test_both_ledgers_are_read_to_their_ends_wherever_they_differ(found):
    read = [[], []]

    def watched(entries, seen):
        for entry in entries:
            seen.append(entry)
            yield entry

    assert first_difference(watched(ENTRIES, read[0]), watched(found, read[1])) is not None
    assert read == [ENTRIES, found]


def test_a_hundred_tamperings_of_a_ledger_are_found():
    dice = random.Random(3)
    for _ in range(100):
        found = list(ENTRIES)
        place = dice.randrange(len(found))
        match dice.choice(["deleted", "added", "reordered", "changed"]):
            case "deleted":
                found.pop(place)
            case "added":
                found.insert(place, dice.choice(ENTRIES))
            case "reordered":
                found.insert((place + 1 + dice.randrange(11)) % 12, found.pop(place))
                if found == ENTRIES:
                    continue
            case "changed":
                found[place] = found[place]._replace(key="another")
        assert first_difference(ENTRIES, found) is not None
