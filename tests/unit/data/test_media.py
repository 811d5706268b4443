from __future__ import annotations

import io
import json
import resource
import time

import av
import numpy as np
import pytest
import soundfile
from PIL import Image
from workspace import SHARED

from uni_moe.data.media import decode_image, decode_sound, decode_video, load, measure
from uni_moe.errors import DataError
from uni_moe.records import MediaRef

HOSTILE = SHARED / "hostile"
real_data = pytest.mark.real_data
needs_hostile = pytest.mark.skipif(not HOSTILE.is_dir(), reason="no shared data beside the project")


def hostile_files() -> list[dict]:
    if not HOSTILE.is_dir():
        return []
    lines = (HOSTILE / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def as_png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def as_wav(wave: np.ndarray, rate: int, subtype: str = "FLOAT") -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, wave, rate, format="WAV", subtype=subtype)
    return stream.getvalue()


def numbered_gif(n: int) -> bytes:
    frames = [Image.new("RGB", (4, 4), (10 * i, 0, 0)) for i in range(n)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], duration=100)
    return stream.getvalue()


def numbered_film(n: int) -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format="matroska") as box:
        track = box.add_stream("ffv1", rate=10)
        track.width, track.height, track.pix_fmt = 16, 16, "bgr0"
        for i in range(n):
            array = np.full((16, 16, 3), 10 * i, dtype=np.uint8)
            for packet in track.encode(av.VideoFrame.from_ndarray(array, format="rgb24")):
                box.mux(packet)
        for packet in track.encode():
            box.mux(packet)
    return stream.getvalue()


def reds(frames: list[Image.Image]) -> list[int]:
    return [round(np.asarray(frame)[..., 0].mean() / 10) for frame in frames]


@real_data
@needs_hostile
@pytest.mark.parametrize("case", hostile_files(), ids=lambda case: case["file"])
def test_a_hostile_file_is_decoded_or_refused_as_expected(case):
    data = (HOSTILE / case["file"]).read_bytes()
    began, kind, check = time.monotonic(), case["modality"], case.get("check", {})
    try:
        facts = measure(kind, [data])
        media = load(
            MediaRef(kind=kind, sha256="", members=("x",), size_bytes=1), [data], video_frames=8
        )
    except DataError as error:
        refusal: DataError | None = error
    else:
        refusal = None
        holds(check, facts, media, data, kind)
    assert case["expect"] != ("ok" if refusal else "error"), refusal
    assert refusal is None or (refusal.cause and refusal.remedy and " at 0x" not in str(refusal))
    assert time.monotonic() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2**20 * 1.5  # KiB: torch included


def holds(check, facts, media, data, kind):
    """Hold what was measured and decoded against a case's check."""
    if kind == "image":
        film = measure("video", [data]).frames if "frames" in check else None
        array = np.asarray(media, dtype=float)
        assert array.shape == (facts.height_px, facts.width_px, 3)
        found = {"width": facts.width_px, "height": facts.height_px, "frames": film}
        assert all(found[key] == check[key] for key in found if key in check)
        if "top_left" in check:
            assert np.abs(array[2, 2] - check["top_left"]).max() <= check["tolerance"]
        if "left_mean_below" in check:
            assert array[:, :4].mean() < check["left_mean_below"]
            assert array[:, -4:].mean() > check["right_mean_above"]
    elif kind == "video":
        assert len(media) == 8
        found = {"width": facts.width_px, "height": facts.height_px, "frames": facts.frames}
        assert all(found[key] == check[key] for key in found if key in check)
    else:
        assert np.isfinite(media).all()
        assert np.abs(media).max() <= 1
        found = {"rate": facts.sample_rate_hz, "channels": facts.channels}
        assert all(found[key] == check[key] for key in found if key in check)
        if "seconds" in check:
            assert len(media) / 16000 == pytest.approx(check["seconds"], abs=0.01)
        if "hertz" in check:
            spectrum = np.abs(np.fft.rfft(media))
            assert spectrum.argmax() * 16000 / len(media) == pytest.approx(check["hertz"], abs=2)


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None, :].repeat(4, axis=0)
    grey = np.asarray(decode_image(as_png(ramp)))[0, :, 0].astype(int)
    assert np.abs(grey - np.linspace(0, 255, 64)).max() <= 1


def test_alpha_is_laid_on_white():
    clear = np.zeros((2, 2, 4), dtype=np.uint8)
    assert (np.asarray(decode_image(as_png(clear))) == 255).all()


@pytest.mark.parametrize("make", [numbered_gif, numbered_film])
@pytest.mark.parametrize(
    ("n", "want", "frames", "expected"),
    [
        (8, 4, None, [0, 2, 4, 6]),
        (10, 4, None, [0, 2, 5, 7]),
        (3, 6, None, [0, 0, 1, 1, 2, 2]),
        (10, 2, (4, 5, 6, 7), [4, 6]),
    ],
)
def test_frames_are_picked_evenly(make, n, want, frames, expected):
    assert reds(decode_video([make(n)], want=want, frames=frames)) == expected


def test_loose_frames_are_a_film_too():
    members = [as_png(np.full((4, 4, 3), 10 * i, dtype=np.uint8)) for i in range(6)]
    assert reds(decode_video(members, want=3)) == [0, 2, 4]
    assert measure("video", members).frames == 6


def test_a_frame_that_the_film_lacks_is_refused():
    with pytest.raises(DataError, match="frames"):
        decode_video([numbered_gif(3)], want=2, frames=(2, 3))
    with pytest.raises(DataError, match="3 frames"):
        measure("video", [numbered_gif(3)], frames=(2, 3))


def test_sounds_are_joined_with_silence_between():
    one = as_wav(np.full(1600, 0.5, dtype=np.float32), 16000)
    wave = decode_sound([one, one], gap_ms=50)
    assert len(wave) == 1600 + 800 + 1600
    assert (wave[1600:2400] == 0).all()
    assert measure("speech", [one, one], gap_ms=50).duration_s == 0.25


def test_a_playlist_cannot_make_us_open_another_file(tmp_path):
    secret = tmp_path / "secret.wav"
    secret.write_bytes(as_wav(np.zeros(16000, dtype=np.float32), 16000))
    for text in (f"#EXTM3U\n#EXTINF:1,\n{secret}\n", f"ffconcat version 1.0\nfile {secret}\n"):
        with pytest.raises(DataError):
            decode_sound([text.encode()])


def test_a_long_sound_is_refused_by_its_header():
    silence = as_wav(np.zeros(601 * 8000, dtype=np.int16), 8000, "PCM_16")
    with pytest.raises(DataError, match="600 s"):
        decode_sound([silence])


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG"])
def test_a_sound_that_is_cut_is_not_taken_for_a_short_one(form):
    stream = io.BytesIO()
    noise = np.random.default_rng(0).normal(size=64000) * 0.1
    subtype = "VORBIS" if form == "OGG" else "PCM_16"
    soundfile.write(stream, noise, 16000, format=form, subtype=subtype)
    whole = stream.getvalue()
    assert len(decode_sound([whole])) == 64000
    for size in (len(whole) // 3, len(whole) - 5):
        with pytest.raises(DataError):
            decode_sound([whole[:size]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_number_that_is_none_reaches_the_model(bad):
    wave = np.zeros(100, dtype=np.float32)
    wave[50] = bad
    with pytest.raises(DataError, match="no numbers"):
        decode_sound([as_wav(wave, 16000)])


def test_a_small_file_that_claims_a_huge_film_is_refused(monkeypatch):
    monkeypatch.setattr("uni_moe.data.films.MAX_ANIMATION_PIXELS", 100)
    assert measure("video", [numbered_gif(6)]).frames == 6
    with pytest.raises(DataError, match="refused"):
        measure("video", [numbered_gif(7)])
