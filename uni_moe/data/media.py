"""Media of any kind: decode it for a model, or decode it to measure it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from uni_moe.data.films import decode_video, measure_video
from uni_moe.data.pictures import decode_image, open_picture
from uni_moe.data.sounds import Wave, decode_sound, measure_sound
from uni_moe.errors import DataError
from uni_moe.records import MediaKind, MediaRef

__all__ = ["Facts", "Media", "decode_image", "decode_sound", "decode_video", "load", "measure"]

# A picture, a film's frames, or mono sound at 16 kHz.
Media = Image.Image | list[Image.Image] | Wave


@dataclass(frozen=True)
class Facts:
    """What a piece of media is. None where it does not apply to the kind."""

    size_bytes: int
    codec: str
    width_px: int | None = None
    height_px: int | None = None
    frames: int | None = None
    duration_s: float | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None


def measure(
    kind: MediaKind,
    members: Sequence[bytes],
    *,
    gap_ms: int | None = None,
    frames: Sequence[int] | None = None,
) -> Facts:
    """Decode a piece of media to its end and return what it is.

    `frames` counts as the film's frames where it is given; the file must have them.

    Raises:
        DataError: it cannot be decoded.
    """
    if not members:
        raise DataError(
            f"A piece of {kind} has no files.",
            cause="the record names none.",
            remedy="name its files in the record.",
        )
    size_bytes = sum(map(len, members))
    if kind == "image":
        image = decode_image(members[0])
        codec = str(open_picture(members[0]).format).lower()
        return Facts(size_bytes, codec, width_px=image.width, height_px=image.height)
    if kind == "video":
        film = measure_video(members)
        if frames is not None and (not frames or max(frames) >= film.frames or min(frames) < 0):
            raise DataError(
                f"The film has {film.frames} frames, the record asks for {list(frames)[-1:]}.",
                cause="the record names frames that the film does not have.",
                remedy="correct `frames` in the record.",
            )
        return Facts(
            size_bytes,
            film.codec,
            width_px=film.width_px,
            height_px=film.height_px,
            frames=film.frames if frames is None else len(frames),
            duration_s=film.duration_s,
        )
    sound = measure_sound(members, gap_ms=gap_ms)
    return Facts(
        size_bytes,
        sound.codec,
        duration_s=sound.duration_s,
        sample_rate_hz=sound.sample_rate_hz,
        channels=sound.channels,
    )


def load(ref: MediaRef, members: Sequence[bytes], *, video_frames: int) -> Media:
    """Decode what a reference points at: a picture, `video_frames` frames, or 16 kHz mono sound.

    Raises:
        DataError: it cannot be decoded.
    """
    if ref.kind == "image":
        return decode_image(members[0])
    if ref.kind == "video":
        return decode_video(members, want=video_frames, frames=ref.frames)
    return decode_sound(members, gap_ms=ref.gap_ms)
