"""Micro-batches by their sizes."""

from dataclasses import replace

import pytest

from uni_moe.config import Packing, load_params
from uni_moe.train.loads import ASSUMED_LABELS, ASSUMED_POSITIONS, Size, assumed, loads_of
from uni_moe.workspace import recipe_file

STEP = [Size(10, 4, {"image": 1}), Size(6, 2), Size(8, 3, {"image": 2, "audio": 1})]


def test_rows_of_their_own_are_filled_up_to_the_longest():
    found = loads_of([STEP], None)
    assert (found.largest.rows, found.largest.length) == (3, 10)
    assert found.largest.labels == 9
    assert found.largest.media == {"image": 3, "audio": 1}
    assert found.largest.pairs == 3 * 100
    assert (found.draws_per_step, found.positions_per_step) == (3, 30)


def test_packed_rows_hold_what_they_hold_and_attend_apart():
    found = loads_of([STEP], Packing(row_positions=16, rows=1, on_too_long="refuse"))
    assert found.batches == 2
    assert found.largest.rows == 1
    assert found.largest.length <= 16
    assert found.positions_per_step == 24
    assert sum(count for count, _ in found.largest.spans) == 2
    assert found.largest.pairs < 16**2


def test_conversations_of_about_one_length_attend_together_filled_up():
    sizes = [Size(length, 1) for length in (100, 99, 500)]
    found = loads_of([sizes], Packing(row_positions=1024, rows=1, on_too_long="refuse"))
    assert found.largest.spans == ((1, 500), (2, 100))


def test_different_sizes_are_counted_once():
    found = loads_of([STEP, STEP, [Size(10, 4)]], None).shapes
    assert (found.positions, found.labels, found.groups, found.batches) == (2, 2, 2, 3)
    assert found.media == {"image": 2, "audio": 2}


def test_a_process_is_charged_with_the_sizes_that_it_meets_itself():
    # Two ranks, a conversation for each in every step: 40 and 9, 30 and 9, 20 and 9.
    steps = [[Size(long, long), Size(9, 9)] for long in (40, 30, 20)]
    alone, shared = (loads_of(steps, None, ranks=n).shapes for n in (1, 2))
    assert (alone.positions, alone.batches) == (3, 3)
    assert (shared.positions, shared.labels, shared.groups) == (3, 3, 3)  # of both ranks: 4
    assert (shared.visited, shared.batches) == (40, 3)


def test_media_of_other_ranks_are_no_sizes_of_ones_own():
    steps = [[Size(9, 1, {"image": n}), Size(9, 1, {"audio": n})] for n in (1, 2, 3)]
    assert loads_of(steps, None, ranks=2).shapes.media == {"image": 3, "audio": 3}


def test_ranks_share_a_step():
    alone, shared = (loads_of([STEP * 2], None, ranks=n) for n in (1, 2))
    assert alone.largest.rows == 2 * shared.largest.rows == 6


def test_the_largest_of_several_steps_counts():
    found = loads_of([[Size(3, 1)], [Size(50, 2)], [Size(4, 30)]], None)
    assert (found.largest.length, found.largest.labels) == (50, 30)
    assert found.draws_per_step == 1


def test_a_film_is_as_many_pictures_as_it_has_frames():
    assert loads_of([[Size(9, 1, {"video": 1})]], None, frames=8).largest.frames == 8


def test_without_a_corpus_a_step_is_what_its_blend_says():
    tune = load_params(recipe_file("playground")).tune
    rows = {"image": 36, "video": 36, "audio": 8, "speech": 10}
    found = assumed(replace(tune, batch_size=9), rows)
    assert len(found) == 9
    assert sum(one.media.get("image", 0) for one in found) == 2
    assert {one.positions for one in found if not one.media} == {ASSUMED_POSITIONS}
    assert all(one.labels == ASSUMED_LABELS for one in found)


def test_steps_by_positions_are_as_many_draws_as_they_hold():
    tune = replace(
        load_params(recipe_file("playground")).tune,
        batch_size=None,
        batch_positions=1280,
        blend={"text": 1.0},
    )
    assert len(assumed(tune, {})) == pytest.approx(1280 / ASSUMED_POSITIONS)
