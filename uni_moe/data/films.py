"""Decoding of untrusted films: evenly spaced frames, never the whole film in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av
from PIL import Image

from uni_moe.data.containers import broken_container, open_container
from uni_moe.data.pictures import MAX_PIXELS, decode_image, open_picture, refuse_picture, to_rgb
from uni_moe.errors import DataError

MAX_FRAMES = 20_000
MAX_FILM_PIXELS = 50_000_000_000  # all frames together: ten minutes of 1080p at 30 a second
MAX_ANIMATION_PIXELS = 2_000_000_000
_PICTURE_STARTS = (b"GIF8", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


@dataclass(frozen=True)
class FilmFacts:
    """What a film is, found by decoding every frame. `duration_s` is None for loose frames."""

    width_px: int
    height_px: int
    frames: int
    duration_s: float | None
    codec: str


def decode_video(
    members: Sequence[bytes], *, want: int, frames: Sequence[int] | None = None
) -> list[Image.Image]:
    """Return `want` evenly spaced RGB frames of a film: number i is frame i * n // want of n.

    A film is one film file, one animated GIF, WebP or PNG, or a list of pictures. A film with
    fewer frames gives some of them twice. `frames` narrows the film to these of its frames. The
    turn that some phones write into a film is not applied.

    Raises:
        DataError: the film cannot be decoded, is too large, or lacks a frame that is asked for.
    """
    if not members:
        raise broken_container("it has no files")
    if len(members) > 1:
        return [decode_image(members[i]) for i in _evenly(want, len(members), frames)]
    if is_animation(members[0]):
        return _pick_animation(members[0], want, frames)
    return _pick_film(members[0], want, frames)


def measure_video(members: Sequence[bytes]) -> FilmFacts:
    """Decode every frame of a film, one at a time, and return what it is.

    Raises:
        DataError: the film cannot be decoded or is too large.
    """
    if not members:
        raise broken_container("it has no files")
    if len(members) > 1:
        _check_count(len(members))
        sizes = [decode_image(member).size for member in members]
        lowest = min(width for width, _ in sizes), min(height for _, height in sizes)
        return FilmFacts(*lowest, frames=len(sizes), duration_s=None, codec="pictures")
    if is_animation(members[0]):
        return _measure_animation(members[0])
    return _measure_film(members[0])


def is_animation(data: bytes) -> bool:
    """Tell whether Pillow reads these bytes, by their first bytes and not by a name."""
    return data.startswith(_PICTURE_STARTS) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def _evenly(want: int, n: int, frames: Sequence[int] | None) -> list[int]:
    chosen = range(n) if frames is None else frames
    if not chosen or max(chosen) >= n or min(chosen) < 0:
        raise DataError(
            f"Frames {list(chosen)[:3]}… of a film of {n} frames are asked for.",
            cause="the record names frames that the film does not have.",
            remedy="correct `frames` in the record.",
        )
    return [chosen[i * len(chosen) // want] for i in range(want)]


def _check_count(n: int, frame_pixels: int = 0, most_pixels: int = MAX_FILM_PIXELS) -> None:
    if n > MAX_FRAMES or n * frame_pixels > most_pixels:
        raise DataError(
            f"A film of more than {MAX_FRAMES} frames or {most_pixels} pixels is refused.",
            cause="such a film would hold up the whole run.",
            remedy="cut the film into pieces before ingest.",
        )


def _animation_frames(data: bytes) -> Iterator[Image.Image]:
    """Give the frames of an animation in order, each as Pillow composes it, not yet RGB."""
    image = open_picture(data)
    try:
        count = getattr(image, "n_frames", 1)
        _check_count(count, image.width * image.height, MAX_ANIMATION_PIXELS)
        for index in range(count):
            image.seek(index)
            image.load()
            yield image
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - a decoder of untrusted bytes may raise anything
        refuse_picture(str(error) or type(error).__name__)


def _pick_animation(data: bytes, want: int, frames: Sequence[int] | None) -> list[Image.Image]:
    image = open_picture(data)
    try:
        count = getattr(image, "n_frames", 1)
    except Exception as error:  # noqa: BLE001 - a decoder of untrusted bytes may raise anything
        refuse_picture(str(error) or type(error).__name__)
    picks = _evenly(want, count, frames)
    kept = {
        index: to_rgb(frame.copy())
        for index, frame in enumerate(_animation_frames(data))
        if index in picks
    }
    return [kept[index] for index in picks]


def _measure_animation(data: bytes) -> FilmFacts:
    count, duration_ms, image = 0, 0.0, open_picture(data)
    for frame in _animation_frames(data):
        count += 1
        duration_ms += float(frame.info.get("duration", 0))
    width, height = image.size
    return FilmFacts(width, height, count, duration_ms / 1000 or None, str(image.format).lower())


def _film_frames(box: Any) -> Iterator[Any]:  # noqa: ANN401 - PyAV is untyped
    """Decode the first picture track, one frame at a time; damaged packets are passed over."""
    if not box.streams.video:
        raise DataError(
            "A film has no picture track.",
            cause="the file holds sound only.",
            remedy="name it as audio or speech, or give the film.",
        )
    stream = box.streams.video[0]
    stream.codec_context.thread_count = 1
    if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        raise DataError(
            "A film with huge frames is refused.",
            cause=f"at most {MAX_PIXELS} pixels a frame are decoded.",
            remedy="scale the film down before ingest.",
        )
    count = 0
    for packet in box.demux(stream):
        try:
            decoded = packet.decode()
        except av.error.InvalidDataError:
            continue
        for frame in decoded:
            count += 1
            _check_count(count, frame.width * frame.height)
            yield frame


def _pick_film(data: bytes, want: int, frames: Sequence[int] | None) -> list[Image.Image]:
    """Pick frames by the packets' count; where fewer can be decoded, pick again by their count."""
    with open_container(data) as box:
        expected = sum(packet.size > 0 for packet in box.demux(video=0)) if box.streams.video else 0
    kept, count = _keep(data, set(_evenly(want, expected, frames)) if expected else set())
    if count == 0:
        raise broken_container("no frame could be decoded")
    if count != expected:
        kept, _ = _keep(data, set(_evenly(want, count, frames)))
    return [kept[index] for index in _evenly(want, count, frames)]


def _keep(data: bytes, picks: set[int]) -> tuple[dict[int, Image.Image], int]:
    """Return the picked frames of a film and the number of all frames."""
    kept: dict[int, Image.Image] = {}
    count = 0
    with open_container(data) as box:
        for frame in _film_frames(box):
            if count in picks:
                kept[count] = frame.to_image()
            count += 1
    return kept, count


def _measure_film(data: bytes) -> FilmFacts:
    count, width, height = 0, 0, 0
    with open_container(data) as box:
        for frame in _film_frames(box):
            count, width, height = count + 1, frame.width, frame.height
        if count == 0:
            raise broken_container("no frame could be decoded")
        stream = box.streams.video[0]
        rate = float(stream.average_rate or 0)
        return FilmFacts(width, height, count, count / rate if rate else None, stream.codec.name)
