import json

import pytest

from uni_moe.records import MediaRef, Sample, Slot, Turn, modality_of, sample_id

TURNS = (
    Turn("user", (Slot("image"), "\nWhat is it?")),
    Turn("assistant", ("a cat",)),
)


def test_a_sample_survives_json():
    ref = MediaRef("video", "ab", ("a.png", "b.png"), 7, shard="x.tar", frames=(1, 2))
    sample = Sample("s/1", "id", "s", "train", "video", "s/t", TURNS, (ref,), choices=("a", "b"))
    assert Sample.from_json(json.loads(json.dumps(sample.to_json()))) == sample


@pytest.mark.parametrize(
    ("kinds", "modality"),
    [([], "text"), (["image"], "image"), (["image", "speech"], "speech"), (["audio"], "audio")],
)
def test_a_sample_belongs_to_one_modality(kinds, modality):
    assert modality_of(kinds) == modality


def test_an_id_depends_on_text_and_media():
    one = sample_id(TURNS, ["aa"])
    assert one == sample_id(TURNS, ["aa"])
    assert one != sample_id(TURNS, ["bb"])
    assert one != sample_id(TURNS[::-1], ["aa"])
