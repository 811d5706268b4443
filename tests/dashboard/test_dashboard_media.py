"""Media of samples as pages show them: decoded within limits, or refused in a sentence."""

import io
import json
import subprocess
import sys
import wave
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from PIL import Image

from dashboard.sources import media
from dashboard.sources.workspace import WORKSPACE
from uni_moe.artifacts import Layout
from uni_moe.data.shards import ShardWriter
from uni_moe.records import MediaRef


@pytest.fixture
def pack(tmp_path, monkeypatch):
    """Pack files of a sample of pictures, as ingest does; return the reference."""
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    folder = Layout(tmp_path).samples("image")
    folder.mkdir(parents=True)

    def packed(kind, *files, **told):
        writer = ShardWriter(folder)
        hashes = [f"{number:064}" for number, _ in enumerate(files)]
        shard, members = writer.add("mine/1", files, hashes, ["a"] * len(files))
        writer.close()
        return MediaRef(kind, "0" * 64, members, sum(map(len, files)), shard, **told)

    return packed


def picture(size=(1000, 500), **how):
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, **({"format": "PNG"} | how))
    return file.getvalue()


def sound(seconds, rate=8000):
    file = io.BytesIO()
    waves = np.sin(np.arange(int(seconds * rate)) / 5)
    soundfile.write(file, waves, rate, format="WAV")
    return file.getvalue()


def shown(ref):
    return media.medium("samples", "image", ref)


def test_a_picture_becomes_a_small_png_and_says_its_size(pack):
    found = shown(pack("image", picture()))
    small = Image.open(io.BytesIO(found.pictures[0]))
    assert small.format == "PNG"
    assert small.size == (media.EDGE_PX, media.EDGE_PX // 2)
    assert found.about == "picture of 1000 x 500 pixels"
    assert found.problem is None


def test_a_film_of_pictures_gives_some_frames_in_order(pack):
    found = shown(pack("video", picture((40, 30)), picture((40, 30), format="JPEG")))
    assert len(found.pictures) == media.FRAMES
    assert found.film is None


def test_an_animation_gives_frames_and_is_not_handed_on(pack):
    file = io.BytesIO()
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "green")]
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:])
    found = shown(pack("video", file.getvalue(), duration_s=0.3))
    assert len(found.pictures) == media.FRAMES
    assert found.film is None
    assert found.about.startswith("film of 0.3 s, 40 x 30 pixels")


def test_a_sound_becomes_mono_wav_of_its_first_minute(pack):
    found = shown(pack("audio", sound(61.5)))
    with wave.open(io.BytesIO(found.sound)) as heard:
        assert (heard.getnchannels(), heard.getframerate()) == (1, 16_000)
        assert heard.getnframes() == 16_000 * media.LONGEST_S
    assert "its first 60 s" in found.about


def test_bytes_that_are_no_picture_are_told_in_a_sentence(pack):
    found = shown(pack("image", b"<script>alert(1)</script>"))
    assert not found.pictures
    assert "cannot be decoded" in found.problem
    assert "What to do" in found.problem


def test_a_small_file_that_claims_a_huge_picture_is_not_decoded(pack):
    huge = picture((7000, 5000), format="GIF")
    found = shown(pack("image", huge))
    assert "7000 x 5000" in found.problem


def test_a_film_with_too_many_pixels_is_not_decoded(pack, monkeypatch):
    monkeypatch.setattr(media, "FILM_PIXELS", 1000)
    assert "too large" in shown(pack("video", picture((40, 30)), picture((40, 30)))).problem


def test_a_shard_that_is_gone_says_how_to_bring_it_back(pack, tmp_path):
    ref = pack("image", picture())
    (Layout(tmp_path).samples("image") / ref.shard).unlink()
    assert "dvc checkout" in shown(ref).problem


@pytest.mark.parametrize("shard", ["../../secret.tar", "/etc/passwd", "media-../x.tar", None, 7])
def test_a_record_cannot_name_a_file_elsewhere(pack, shard):
    ref = replace(pack("image", picture()), shard=shard)
    assert "names no shard" in shown(ref).problem


def test_a_member_or_kind_that_is_not_there_is_told(pack):
    ref = pack("image", picture())
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
