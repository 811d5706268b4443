from uni_moe.records import MediaRef, Sample, Turn
from uni_moe.train.conversations import within_sight


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
