from dataclasses import replace

import pytest

from tests.unit.outlook.corpora import corpus, gone, sample
from uni_moe.artifacts import Layout
from uni_moe.config import load_params
from uni_moe.extent import Extent
from uni_moe.machine import Machine
from uni_moe.outlook.trainings import Trainings
from uni_moe.train.fits import room_of
from uni_moe.train.tokenizer import train_tokenizer
from uni_moe.workspace import recipe_file

PARAMS = load_params(recipe_file("smoke"))
BY_POSITIONS = replace(
    PARAMS.align["speech"], tasks=("caption",), batch_size=None, batch_positions=200
)


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path)
    words = train_tokenizer(["USER: what is it? ASSISTANT: one"] * 9, vocab_size=280)
    words.save_pretrained(layout.foundation("language"))
    return layout


@pytest.mark.parametrize(
    ("extents", "said"), [({}, "Nobody knows how long 1 "), ({"caption": Extent(9)}, None)]
)
def test_data_that_ends_a_phase_is_told_of_it_and_ends_no_plan(layout, extents, said):
    corpus(layout, [sample(name, "speech") for name in "abc"], gone=[gone("s/z", extents)])
    params = replace(PARAMS, align={**PARAMS.align, "speech": BY_POSITIONS})
    found = Trainings(layout, params, Machine()).of("align@speech")
    assert (found.problem or "").startswith(said or "")
    assert (found.problem is None) is found.measured is (said is None)


def test_a_tiny_foundation_has_the_machine_for_itself_and_a_phase_shares_it(tmp_path):
    shared = Machine(launcher="torchrun", processes=4)
    looking = Trainings(Layout(tmp_path), PARAMS, shared)
    for part in ("language", "image"):
        assert looking.of(f"foundation@{part}").room == room_of(Machine())
    assert looking.of("align@speech").room == room_of(shared)


def test_memory_that_the_machine_profile_names_is_every_stages(tmp_path):
    machine = Machine(launcher="torchrun", processes=4, memory_bytes=10**9)
    looking = Trainings(Layout(tmp_path), PARAMS, machine)
    rooms = {looking.of(stage).room for stage in ("foundation@language", "align@speech", "tune")}
    assert {room.size_bytes for room in rooms} == {10**9}


def test_what_a_tiny_foundation_draws_is_told_by_modality(layout):
    corpus(layout, [sample(name, "image") for name in "abc"], modality="image")
    looking = Trainings(layout, PARAMS, Machine())
    assert looking.of("foundation@image").pools == {}  # films are not here yet
    corpus(layout, [sample(name, "video") for name in "de"], modality="video")
    chosen = PARAMS.foundation.image.tiny
    draws = chosen.steps * chosen.batch_size
    found = looking.of("foundation@image").pools
    assert {name: pool.conversations for name, pool in found.items()} == {"image": 3, "video": 2}
    assert found["image"].draws == draws * 3 // 11  # a film is four frames
    assert found["video"].draws == draws * 8 // 11
    assert found["video"].not_reached == 0
    assert not found["image"].exact
