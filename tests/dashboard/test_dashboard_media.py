"""Media of samples as pages show them: decoded within limits, or refused in a sentence."""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import wave
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from dashboard.sources import media
from dashboard.sources.workspace import WORKSPACE
from tests.dashboard.packed import pack, picture, sound
from uni_moe.artifacts import Layout
from uni_moe.records import MediaRef


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Pack files of a sample of pictures, as ingest does; return the reference."""
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    return partial(pack, Layout(tmp_path).samples("image"))


def shown(ref):
    return media.medium("samples", "image", ref)


def test_a_picture_becomes_a_small_png_and_says_its_size(packed):
    found = shown(packed("image", picture()))
    small = Image.open(io.BytesIO(found.pictures[0]))
    assert small.format == "PNG"
    assert small.size == (media.EDGE_PX, media.EDGE_PX // 2)
    assert found.about == "picture of 1000 x 500 pixels"
    assert found.problem is None


def colours(pictures):
    """Return the colour in the middle of each picture: which of red, green and blue is most."""
    opened = (Image.open(io.BytesIO(one)).convert("RGB") for one in pictures)
    pixels = (one.getpixel((one.width // 2, one.height // 2)) for one in opened)
    return [("red", "green", "blue")[pixel.index(max(pixel))] for pixel in pixels]


def test_a_film_of_pictures_gives_some_frames_in_order(packed):
    found = shown(packed("video", picture((40, 30)), picture((40, 30), "blue", format="JPEG")))
    assert colours(found.pictures) == ["red"] * 3 + ["blue"] * 3
    assert found.film is None


def test_an_animation_gives_frames_and_is_not_handed_on(packed):
    file = io.BytesIO()
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "green")]
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:])
    found = shown(packed("video", file.getvalue(), duration_s=0.3))
    assert colours(found.pictures) == ["red", "red", "blue", "blue", "green", "green"]
    assert found.film is None
    assert found.about.startswith("film of 0.3 s, 40 x 30 pixels")


def test_a_sound_becomes_mono_wav_of_its_first_minute(packed):
    found = shown(packed("audio", sound(61.5)))
    with wave.open(io.BytesIO(found.sound)) as heard:
        assert (heard.getnchannels(), heard.getframerate()) == (1, 16_000)
        assert heard.getnframes() == 16_000 * media.LONGEST_S
    assert "its first 60 s" in found.about


@pytest.mark.parametrize("kind", ["audio", "speech"])
def test_both_channels_of_a_stereo_sound_are_heard_as_one(packed, kind):
    found = shown(packed(kind, sound(2, channels=2)))
    with wave.open(io.BytesIO(found.sound)) as heard:
        assert (heard.getnchannels(), heard.getnframes()) == (1, 2 * 16_000)
        samples = np.frombuffer(heard.readframes(32_000), "<i2") / 32767
    # The second channel has half the level of the first, 0.9; their mean has three quarters.
    assert np.abs(samples[1000:-1000]).max() == pytest.approx(0.675, abs=0.02)


def test_bytes_that_are_no_picture_are_told_in_a_sentence(packed):
    found = shown(packed("image", b"<script>alert(1)</script>"))
    assert not found.pictures
    assert "cannot be decoded" in found.problem
    assert "What to do" in found.problem


def test_a_small_file_that_claims_a_huge_picture_is_not_decoded(packed):
    huge = bytearray(picture((8, 8), format="GIF"))
    huge[6:10] = struct.pack("<HH", 7000, 5000)
    found = shown(packed("image", bytes(huge)))
    assert "7000 x 5000" in found.problem


def test_a_film_with_too_many_pixels_is_not_decoded(packed, monkeypatch):
    monkeypatch.setattr(media, "FILM_PIXELS", 1000)
    assert "too large" in shown(packed("video", picture((40, 30)), picture((40, 30)))).problem


def test_a_shard_that_is_gone_says_how_to_bring_it_back(packed, tmp_path):
    ref = packed("image", picture())
    (Layout(tmp_path).samples("image") / ref.shard).unlink()
    assert "dvc checkout" in shown(ref).problem


@pytest.mark.parametrize("name", ["{up}", "{whole}", "media-x/{up}", "./{own}", None, 7])
def test_a_record_cannot_name_a_file_elsewhere(packed, tmp_path, name):
    ref = packed("image", picture())
    folder = Layout(tmp_path).samples("image")
    secret = tmp_path / "secret.tar"
    shutil.copy(folder / ref.shard, secret)
    (folder / "media-x").mkdir()
    if isinstance(name, str):
        up = os.path.relpath(secret, folder / "media-x" if "media-x" in name else folder)
        name = name.format(up=up, whole=secret, own=ref.shard)
        assert (folder / name).is_file(), "it must be there to be refused for its name"
    assert "names no shard" in shown(replace(ref, shard=name)).problem


def test_a_member_or_kind_that_is_not_there_is_told(packed):
    ref = packed("image", picture())
    assert "does not hold" in shown(replace(ref, members=("other.png",))).problem
    assert "failed (KeyError)" in shown(replace(ref, kind="smell")).problem


def test_references_that_cannot_be_read_are_none():
    assert media.references("[{}]") == []
    assert media.references("not JSON") == []
    assert media.references(None) == []
    ref = MediaRef("image", "0" * 64, ("a.png",), 3, "media-0.tar")
    assert media.references(f"[{json.dumps(ref.to_json())}]") == [ref]


def test_decoding_for_a_look_brings_no_torch():
    told = "import sys, dashboard.sources.media, uni_moe.data.media, uni_moe.data.shards"
    check = f"{told}; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
