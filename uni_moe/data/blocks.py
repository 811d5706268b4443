"""Blocks: many arrays in one file, written whole, read one by one, each with a checksum.

A block is laid out as safetensors are, so stock tools open it: the header's length in eight bytes,
a JSON header, the arrays' bytes. The header's `__metadata__` holds each array's CRC-32 over its
name, type, shape and bytes. Checksums find what a disk or a cut copy spoils, not a forgery.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENDING = ".safetensors"
DRAFT = "."  # what a draft's name begins with
_LENGTH = 8  # bytes that hold the header's length
_CHECKSUMS = "__metadata__"
Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Array:
    """An array as it lies on the disk. `dtype` is safetensors' word: F32, BF16."""

    dtype: str
    shape: tuple[int, ...]
    data: Buffer


@dataclass(frozen=True, slots=True)
class Place:
    """Where an array lies, and what it has to be."""

    file: Path
    offset: int
    size_bytes: int
    dtype: str
    shape: tuple[int, ...]
    checksum: str


def write_block(folder: Path, arrays: Mapping[str, Array]) -> Path:
    """Write a block of a new name, whole or not at all, and return its file.

    It is not forced to the disk: readers check every array, so what a power cut tears is found.

    Raises:
        OSError: it cannot be written; nothing of it stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = secrets.token_hex(8) + ENDING
    draft = folder / f"{DRAFT}{name}"
    try:
        with draft.open("xb", buffering=0) as stream:
            for piece in (_header(arrays), *(array.data for array in arrays.values())):
                _write_all(stream, memoryview(piece))
        return draft.replace(folder / name)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def read_places(file: Path) -> dict[str, Place]:
    """Return where the arrays of a block lie, by name.

    Raises:
        ValueError: the file's header is none.
        OSError: the file is gone or cannot be read.
    """
    size_bytes = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH), "little")
        if not 0 < length <= size_bytes - _LENGTH:
            raise ValueError("it is shorter than its header")
        header = json.loads(stream.read(length))
    start = _LENGTH + length
    try:
        checksums = header.pop(_CHECKSUMS)
        found = {name: _place(file, start, told, checksums[name]) for name, told in header.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its header lacks {error}") from error
    return found


def read_array(place: Place, name: str) -> Array | None:
    """Read an array into memory of its own; None where it is not what was written.

    Raises:
        OSError: the file is gone or cannot be read.
    """
    with place.file.open("rb", buffering=0) as stream:
        if place.offset + place.size_bytes > stream.seek(0, os.SEEK_END):
            return None
        data = bytearray(place.size_bytes)
        stream.seek(place.offset)
        read = stream.readinto(data)
    array = Array(place.dtype, place.shape, data)
    return array if read == len(data) and checksum_of(name, array) == place.checksum else None


def checksum_of(name: str, array: Array) -> str:
    """Return an array's CRC-32 over its name, type, shape and bytes, as eight hex digits."""
    head = f"{name}\n{array.dtype}\n{list(array.shape)}\n".encode()
    return f"{zlib.crc32(array.data, zlib.crc32(head)):08x}"


def _header(arrays: Mapping[str, Array]) -> bytes:
    told: dict[str, Any] = {
        _CHECKSUMS: {name: checksum_of(name, array) for name, array in arrays.items()}
    }
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + len(array.data)
        told[name] = {
            "dtype": array.dtype,
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(told, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH)  # the arrays begin at a multiple of eight
    return len(text).to_bytes(_LENGTH, "little") + text


def _place(file: Path, start: int, told: Mapping[str, Any], checksum: str) -> Place:
    begin, end = told["data_offsets"]
    if not 0 <= begin <= end:
        raise KeyError("data_offsets")
    dtype, shape = sys.intern(told["dtype"]), tuple(told["shape"])
    return Place(file, start + begin, end - begin, dtype, shape, checksum)


def _write_all(stream: Any, piece: memoryview) -> None:  # noqa: ANN401 - an unbuffered file
    """Write all bytes: a disk that fills up takes a part first and refuses the next call."""
    written = 0
    while written < len(piece):
        written += stream.write(piece[written:])
