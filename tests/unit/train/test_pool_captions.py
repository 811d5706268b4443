from pathlib import Path

import pytest
import torch
from test_pool import Corpus

from uni_moe.records import MediaRef, Sample, Turn
from uni_moe.train import pool
from uni_moe.train.pool import FRAMES_OF_A_FILM, gather


def captioned(key, modality, *kinds, caption="a cat"):
    media = tuple(MediaRef(kind, f"{key}-{kind}", ("a",), 1) for kind in kinds)
    turns = (Turn("user", ("What is it?",)), Turn("assistant", ("cat",)))
    return Sample(key, key, "s", "train", modality, "s/t", turns, media, caption=caption)


@pytest.fixture
def seen(monkeypatch):
    """Gather with files that hold nothing: a film has as many frames as are asked for."""

    def gathered(kind, *samples):
        frames = []

        def load(ref, *_, video_frames):
            frames.append(video_frames)
            return [torch.zeros(1)] * video_frames if ref.kind == "video" else torch.zeros(1)

        monkeypatch.setattr(pool, "open_corpus", lambda _: Corpus(samples))
        monkeypatch.setattr(pool, "load", load)
        found = gather([Path(kind)], kind, "train", lambda one: one)
        assert set(frames) <= {FRAMES_OF_A_FILM}
        return found

    return gathered


def test_a_pictures_caption_is_its_own_samples(seen):
    assert seen("image", captioned("a", "image", "image")).captions == ("a cat",)
    assert seen("audio", captioned("a", "audio", "audio")).captions == ("a cat",)


def test_a_caption_of_what_is_heard_tells_nothing_of_the_picture_beside_it(seen):
    assert seen("image", captioned("a", "speech", "image", "speech")).captions == (None,)


def test_no_frame_of_a_film_has_the_films_caption(seen):
    found = seen("image", captioned("a", "video", "video"))
    assert found.captions == (None,) * FRAMES_OF_A_FILM
    assert found.captioned == ()


def test_a_voice_has_its_transcript_and_not_the_caption(seen):
    assert seen("speech", captioned("a", "speech", "speech")).captions == (None,)


def test_captioned_media_are_counted_by_their_places(seen):
    samples = (captioned("a", "image", "image", caption=None), captioned("b", "image", "image"))
    found = seen("image", *samples)
    assert found.captioned == (1,)
    assert set(found.words().index) == {"a", "cat"}
