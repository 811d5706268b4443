from types import SimpleNamespace

import pytest

from uni_moe.errors import StageError
from uni_moe.records import MediaRef, Sample, Turn
from uni_moe.train.conversations import check_not_empty, within_sight


def sample(*kinds):
    media = tuple(MediaRef(kind=kind, sha256=kind, members=("a",), size_bytes=1) for kind in kinds)
    turns = (Turn("user", ("What?",)), Turn("assistant", ("one",)))
    return Sample(
        key="-".join(kinds),
        id="x",
        source="s",
        split="train",
        modality="speech",
        task="s/t",
        turns=turns,
        media=media,
    )


def test_a_stage_draws_what_its_encoders_can_read():
    found = {"speech": {s.key: s for s in (sample("speech"), sample("video", "speech"), sample())}}
    assert list(within_sight(found, ("speech",))["speech"]) == ["speech", ""]
    assert list(within_sight(found, ("speech", "image"))["speech"]) == list(found["speech"])


def test_a_blend_that_would_draw_from_nothing_is_told():
    phase = SimpleNamespace(tasks=("caption", "answer"))
    full = {"speech": {"a": sample("speech")}}
    check_not_empty(full, phase)
    with pytest.raises(StageError, match=r"nothing to train on for audio, image\.") as error:
        check_not_empty({**full, "image": {}, "audio": {}}, phase)
    assert "caption or answer" in str(error.value)
