"""The law of the ledger: listed = seen + held out + quarantined + removed + cut + not reached."""

import pytest

from uni_moe.data.conservation import (
    Accepted,
    Group,
    Listed,
    accounts_of,
    check_draws,
    conserve,
    exposures_of,
)
from uni_moe.data.exposures import LedgerEntry
from uni_moe.data.order import Draw
from uni_moe.errors import StageError

CATS, DOGS = Group("cats", "image"), Group("dogs", "image")


def entry(step, slot, key, tokens, truncated=0, group=CATS):
    who = (f"id of {key}", key, group.modality, group.source)
    return LedgerEntry(step, 0, slot, *who, tokens, truncated)


LISTED = {CATS: Listed(listed=9, quarantined=2, removed=1), DOGS: Listed(3, 3)}
ACCEPTED = (
    Accepted(CATS, "train", {"c/1": 5, "c/1#caption": 3}),
    Accepted(CATS, "train", {"c/2": 4}),
    Accepted(CATS, "train", {"c/3": 7}),
    Accepted(CATS, "train", {}),
    Accepted(CATS, "validation", {"c/5": 2, "c/5#caption": 2}),
    Accepted(CATS, "test", {"c/6": 6}),
)
ENTRIES = (
    entry(1, 0, "c/1", 5),
    entry(1, 1, "c/2", 0, truncated=90),
    entry(2, 0, "c/1", 5),
)


def accounts(entries=ENTRIES, accepted=ACCEPTED, listed=LISTED):
    return accounts_of(listed, accepted, exposures_of(entries))


def test_every_sample_and_token_of_the_ledger_has_its_place_by_hand():
    found = accounts()
    conserve(found)
    assert found[CATS].to_json() == {
        "samples": {
            "listed": 9,
            "seen": 1,
            "held_out": 2,
            "quarantined": 2,
            "removed": 1,
            "truncated_to_nothing": 1,
            "not_reached": 2,
        },
        "tokens": {
            "accepted": 29,
            "seen": 5,
            "held_out": 10,
            "truncated": 0,
            "truncated_to_nothing": 4,
            "not_reached": 3 + 7,
        },
        "draws": 3,
        "tokens_learned": 10,
        "strays": 0,
    }
    assert found[DOGS].samples.quarantined == found[DOGS].samples.listed == 3


STEPS = (
    (1, [Draw(0, "image", "c/1"), Draw(1, "image", "c/2")]),
    (2, [Draw(0, "image", "c/1")]),
)


def test_a_ledger_of_a_phases_draws_is_told_nothing():
    check_draws(STEPS, ENTRIES)
    check_draws((), ())


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (ENTRIES[1:], "says step 1, slot 1, image c/2, where step 1, slot 0, image c/1 was"),
        (ENTRIES[:-1], "says nothing, where step 2, slot 0, image c/1 was"),
        ((*ENTRIES, ENTRIES[-1]), "says step 2, slot 0, image c/1, where nothing was"),
        ((ENTRIES[1], ENTRIES[0], ENTRIES[2]), "says step 1, slot 1, image c/2, where step 1, s"),
        ((ENTRIES[0], entry(1, 1, "c/3", 7), ENTRIES[2]), "image c/3, where step 1, slot 1"),
    ],
    ids=["the first is dropped", "the last is dropped", "doubled", "reordered", "another"],
)
def test_draws_that_a_ledger_dropped_or_doubled_stop_the_phase(entries, said):
    with pytest.raises(StageError, match=said):
        check_draws(STEPS, entries)


def test_tokens_that_a_cut_took_are_told_of_a_seen_sample():
    found = accounts((entry(1, 0, "c/3", 4, truncated=20),))
    conserve(found)
    assert (found[CATS].tokens.seen, found[CATS].tokens.truncated) == (4, 3)


@pytest.mark.parametrize(
    ("entries", "accepted", "listed", "said"),
    [
        (ENTRIES, ACCEPTED[1:], LISTED, "1 drawn conversations are not in its training split"),
        (ENTRIES, ACCEPTED[:-1], LISTED, "listed samples are 9, but 1 seen"),
        (ENTRIES, (*ACCEPTED, ACCEPTED[2]), LISTED, "listed samples are 9, but"),
        (ENTRIES, ACCEPTED, LISTED | {DOGS: Listed(3, 2)}, "dogs, image: listed samples are 3"),
        ((entry(1, 0, "c/2", 3),), ACCEPTED, LISTED, "accepted tokens are 29, but"),
        ((entry(1, 0, "c/2", 5),), ACCEPTED, LISTED, "accepted tokens are 29, but"),
        (
            (entry(1, 0, "c/2", 4), entry(2, 0, "c/2", 3)),
            ACCEPTED,
            LISTED,
            "accepted tokens are 29, but",
        ),
        ((entry(1, 0, "c/3", 4, truncated=2),), ACCEPTED, LISTED, "accepted tokens are 29, but"),
        (
            (entry(1, 0, "c/3", 4, truncated=9), entry(2, 0, "c/3", 4)),
            ACCEPTED,
            LISTED,
            "accepted tokens are 29, but",
        ),
        ((entry(1, 0, "c/6", 6),), ACCEPTED, LISTED, "1 drawn conversations are not in its"),
        ((entry(1, 0, "c/2", 4, group=DOGS),), ACCEPTED, LISTED, "dogs, image: 1 drawn"),
    ],
    ids=[
        "a seen sample is in no corpus",
        "a held out sample is lost",
        "a sample is there twice",
        "a refused sample is lost",
        "tokens lost without a cut",
        "tokens learned that are not there",
        "tokens lost at one of two draws",
        "more tokens lost than positions cut",
        "tokens lost without a cut at one of two draws",
        "a test sample was learned from",
        "a draw says another source",
    ],
)
def test_a_ledger_that_does_not_add_up_stops_the_phase(entries, accepted, listed, said):
    with pytest.raises(StageError, match=said):
        conserve(accounts(entries, accepted, listed))
