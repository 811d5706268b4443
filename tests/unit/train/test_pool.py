from pathlib import Path

import numpy as np
import pytest
import torch

from uni_moe.errors import StageError
from uni_moe.records import MediaRef, Sample, Turn
from uni_moe.train import pool
from uni_moe.train.pool import gather


class Corpus:
    def __init__(self, samples):
        self.found = samples

    def samples(self, split):
        return [sample for sample in self.found if sample.split == split]

    def media(self, ref):
        return ref

    def close(self):
        pass


def sample(key, sha256, transcript=None, **parts):
    ref = MediaRef(kind="speech", sha256=sha256, members=("a.wav",), size_bytes=1, **parts)
    turns = (Turn("user", ("What is said?",)), Turn("assistant", ("one",)))
    return Sample(
        key=key,
        id=key,
        source="s",
        split="train",
        modality="speech",
        task="s/t",
        turns=turns,
        media=(ref,),
        transcript=transcript,
    )


def gathered(monkeypatch, *samples):
    monkeypatch.setattr(pool, "open_corpus", lambda _: Corpus(samples))
    monkeypatch.setattr(pool, "load", lambda ref, *_, **__: np.array([len(ref.sha256)]))
    return gather([Path("speech")], "speech", "train", torch.from_numpy)


def test_a_medium_has_the_transcript_of_whichever_sample_brings_one(monkeypatch):
    found = gathered(monkeypatch, sample("a/1", "x"), sample("b/1", "x", "one"), sample("c/1", "y"))
    assert found.captions == ("one", None)
    assert len(found.media) == 2


def test_other_parts_of_a_file_are_other_media(monkeypatch):
    found = gathered(monkeypatch, sample("a/1", "x", gap_ms=0), sample("b/1", "x", gap_ms=50))
    assert len(found.media) == 2


def test_a_kind_without_media_is_told(monkeypatch):
    with pytest.raises(StageError, match="no speech in the training split"):
        gathered(monkeypatch)
