"""The door to PyAV: an untrusted film or sound file is opened and reaches no other file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av

from uni_moe.errors import DataError

# Playlist formats (HLS, concat, …) are left out: they open other files and addresses.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "avi",
    "mpeg",
    "mpegts",
    "mpegvideo",
    "asf",
    "flv",
    "wav",
    "w64",
    "aiff",
    "au",
    "ogg",
    "flac",
    "mp3",
    "aac",
    "amr",
)


@contextmanager
def open_container(data: bytes) -> Iterator[Any]:
    """Open a film or sound file from its bytes.

    Raises:
        DataError: the bytes are no container that we read, or decoding fails inside the block.
    """
    if not data:
        raise broken_container("it has no bytes")
    options = {"format_whitelist": ",".join(_FORMATS), "protocol_whitelist": ""}
    try:
        with av.open(io.BytesIO(data), mode="r", options=options, metadata_errors="replace") as box:
            yield box
    except DataError:
        raise
    except Exception as error:  # a decoder of untrusted bytes may raise anything
        raise broken_container(str(error) or type(error).__name__) from error


def broken_container(reason: str) -> DataError:
    """Return the error for bytes that are no film and no sound."""
    return DataError(
        f"A film or sound file cannot be decoded: {reason}.",
        cause="the file is empty, cut, damaged or of another kind than its name says.",
        remedy="play it; replace it, or convert it (`ffmpeg -i IN OUT.mp4` or `OUT.flac`).",
    )
