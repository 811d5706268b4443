"""Media of samples, ready to be shown: the one place where the dashboard decodes.

    medium(where, modality, ref) -> Shown

`where` says in which artifact a reference (`MediaRef`) points: "samples" for rows of a manifest and
of the quarantine, "corpus" for conversations. A row's references are `references(row["media"])`.
What comes back holds small pictures as PNG, sound as WAV, or a sentence that says why there is
nothing to see or hear; it raises nothing. `dashboard.showing_media.show` puts it on a page.

Decoding is training's own, with its limits and lower ones. No bytes of a data set reach a browser
but films in formats that browsers play; these were decoded here before.
"""

from __future__ import annotations

import io
import json
import re
import wave
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import streamlit as st

from dashboard.sources.workspace import workspace
from dashboard.words import lasting
from uni_moe.artifacts import Layout
from uni_moe.errors import UniMoeError
from uni_moe.records import MODALITIES, MediaRef

if TYPE_CHECKING:
    from PIL.Image import Image

    from uni_moe.data.shards import ShardReader
    from uni_moe.data.sounds import Wave

Where = Literal["samples", "corpus"]
FRAMES = 6  # of a film
EDGE_PX, FRAME_EDGE_PX = 480, 240  # the longer edge of what is shown
LONGEST_S = 60.0  # of a sound, from its beginning
FILM_BYTES = 2_000_000  # a larger one is not given to the browser
FILE_BYTES = 64_000_000  # a larger medium is not decoded for a look
MOST_PIXELS = 32_000_000  # of a picture
FILM_PIXELS = 1_000_000_000  # of all frames of a film
_KEPT = 48
_SHARD = re.compile(r"media-[a-z0-9-]{1,80}\.tar")
_PLAYED = {b"ftyp": "video/mp4", b"\x1aE\xdf\xa3": "video/webm"}


@dataclass(frozen=True)
class Shown:
    """A medium as a page shows it; `about` says in words what it is, for those who do not see it.

    `pictures` are PNG: one of a picture, some frames of a film in order. `sound` is WAV. `film` are
    the film's own bytes, of the type `film_type`. `problem` is a sentence with what to do.
    """

    kind: str
    about: str
    pictures: tuple[bytes, ...] = ()
    sound: bytes | None = None
    film: bytes | None = None
    film_type: str | None = None
    problem: str | None = None


def references(media: str | None) -> list[MediaRef]:
    """Return the references in a manifest's column `media`; none where it is not readable."""
    try:
        return [MediaRef.from_json(one) for one in json.loads(media or "[]")]
    except (ValueError, TypeError, KeyError):
        return []


def medium(where: Where, modality: str, ref: MediaRef) -> Shown:
    """Return a medium of the workspace, ready to be shown. Kept while its shard stays as it is."""
    folder = _folder(workspace(), where, modality)
    if folder is None or not _SHARD.fullmatch(str(ref.shard)):
        return _refused(ref, "Its record names no shard that we write.", "run `dvc repro ingest`.")
    shard = folder / str(ref.shard)
    try:
        stamp = shard.stat().st_mtime_ns
    except OSError:
        return _refused(
            ref,
            f"{where}/{modality}/{ref.shard} is not here.",
            "bring it back with `dvc checkout`, or make it again with `dvc repro`.",
        )
    return _kept(str(folder), stamp, ref)


def _folder(layout: Layout, where: Where, modality: str) -> Path | None:
    if modality not in MODALITIES:
        return None
    return layout.samples(modality) if where == "samples" else layout.corpus(modality)


@st.cache_data(max_entries=_KEPT, show_spinner=False)
def _kept(folder: str, stamp: int, ref: MediaRef) -> Shown:
    try:
        if ref.size_bytes > FILE_BYTES:
            return _refused(ref, f"It is larger than {FILE_BYTES:,} bytes.", "open it elsewhere.")
        files = _reader(folder, str(ref.shard), stamp).read(ref)
        return _SHOW[ref.kind](ref, files)
    except UniMoeError as error:
        return _refused(ref, error.what, error.remedy)
    except Exception as error:  # noqa: BLE001 - a broken record or medium must not break the page
        return _refused(ref, f"Reading it failed ({type(error).__name__}).", "open it elsewhere.")


@lru_cache(maxsize=16)
def _reader(folder: str, shard: str, stamp: int) -> ShardReader:
    """Return a reader that holds the index of one shard."""
    from uni_moe.data.shards import ShardReader

    del shard, stamp  # part of the key alone
    return ShardReader(Path(folder))


def _picture(ref: MediaRef, files: Sequence[bytes]) -> Shown:
    from uni_moe.data.media import decode_image
    from uni_moe.data.pictures import open_picture

    width, height = open_picture(files[0]).size
    if width * height > MOST_PIXELS:
        return _refused(ref, f"It has {width} x {height} pixels.", "open it elsewhere.")
    image = decode_image(files[0])
    about = f"picture of {image.width} x {image.height} pixels"
    return Shown(ref.kind, about, pictures=(_png(image, EDGE_PX),))


def _film(ref: MediaRef, files: Sequence[bytes]) -> Shown:
    from uni_moe.data.media import decode_video

    if _pixels(files) > FILM_PIXELS:
        return _refused(ref, "It is too long or too large for a look.", "open it elsewhere.")
    frames = decode_video(files, want=FRAMES, frames=ref.frames)
    first = frames[0]
    lasts = f" of {lasting(ref.duration_s)}" if ref.duration_s else ""
    about = f"film{lasts}, {first.width} x {first.height} pixels; {FRAMES} of its frames in order"
    shown = Shown(ref.kind, about, tuple(_png(frame, FRAME_EDGE_PX) for frame in frames))
    played = _played_as(files) if len(files) == 1 and ref.frames is None else None
    if played is None or len(files[0]) > FILM_BYTES:
        return shown
    return replace(shown, film=files[0], film_type=played)


def _sound(ref: MediaRef, files: Sequence[bytes]) -> Shown:
    from uni_moe.data.media import decode_sound
    from uni_moe.data.sounds import RATE_HZ

    samples = decode_sound(files, gap_ms=ref.gap_ms)
    seconds = len(samples) / RATE_HZ
    word = "speech" if ref.kind == "speech" else "sound"
    cut = f"; its first {LONGEST_S:.0f} s" if seconds > LONGEST_S else ""
    heard = samples[: int(LONGEST_S * RATE_HZ)]
    return Shown(
        ref.kind, f"{word} of {lasting(seconds)}{cut}, as the model hears it", sound=_wav(heard)
    )


_SHOW = {"image": _picture, "video": _film, "audio": _sound, "speech": _sound}


def _pixels(files: Sequence[bytes]) -> int:
    """Return about how many pixels a film's decoder has to make, without decoding it."""
    from uni_moe.data.containers import open_container
    from uni_moe.data.films import is_animation
    from uni_moe.data.pictures import open_picture

    if len(files) > 1:
        return FRAMES * max(_area(file) for file in files)
    if is_animation(files[0]):
        image = open_picture(files[0])
        return int(getattr(image, "n_frames", 1)) * image.width * image.height
    with open_container(files[0]) as box:
        if not box.streams.video:
            return 0
        context = box.streams.video[0].codec_context
        return (
            sum(packet.size > 0 for packet in box.demux(video=0)) * context.width * context.height
        )


def _area(picture: bytes) -> int:
    from uni_moe.data.pictures import open_picture

    width, height = open_picture(picture).size
    return width * height


def _played_as(files: Sequence[bytes]) -> str | None:
    start = files[0][:12]
    return next((kind for mark, kind in _PLAYED.items() if mark in start), None)


def _png(image: Image, edge_px: int) -> bytes:
    image.thumbnail((edge_px, edge_px))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def _wav(samples: Wave) -> bytes:
    from uni_moe.data.sounds import RATE_HZ

    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE_HZ)
        sound.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


def _refused(ref: MediaRef, why: str, remedy: str) -> Shown:
    said = f"This {ref.kind} cannot be shown. {why} What to do: {remedy}"
    return Shown(ref.kind, f"{ref.kind}, not shown", problem=said)
