"""Which samples an artifact's table holds, packed so that a sample's holders lie side by side.

Samples have numbers. 256 of them make a block, and a table that holds some of a block is one row
under `place`: block first, holder behind it. So all that 1,000 ledgers know of one sample is one
range of keys, and a ledger of 100,000 draws is 391 rows. Pure.

A row is: how many samples less one (a byte); where they stand in the block (a byte each, left out
where all 256 do); then each column as width in bytes, least value, and what exceeds it.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from uni_moe.records import CAPTION

SPAN = 256  # samples of a block
Numbers = NDArray[np.int64]
_HEAD = struct.Struct("<BI")
_HOLDERS = 32  # bits of a place that name the holder
_TYPES = {0: np.uint8, 1: np.uint8, 2: np.uint16, 4: np.uint32}


class Draws(NamedTuple):
    """How often a sample was drawn, from which step to which, with how many loss-bearing tokens.

    A table that only lists samples has zeros.
    """

    draws: int
    first_step: int
    last_step: int
    tokens: int


class Holding(NamedTuple):
    """Samples by their numbers, in order, each once, and a column for each field of Draws."""

    numbers: Numbers
    columns: tuple[Numbers, ...]


def listing(numbers: Numbers) -> Holding:
    """Return samples of which nothing is counted."""
    zeros = np.zeros(len(numbers), np.int64)
    return Holding(np.unique(numbers), (zeros,) * len(Draws._fields))


def place_of(block: int, holder: int) -> int:
    """Return the key of a row."""
    return block << _HOLDERS | holder


def holder_of(place: int) -> int:
    """Return the holder that a key names."""
    return place & ((1 << _HOLDERS) - 1)


def block_of(place: int) -> int:
    """Return the block that a key names."""
    return place >> _HOLDERS


def pack(holding: Holding) -> Iterator[tuple[int, bytes]]:
    """Give each block that holds something, with its row."""
    blocks = holding.numbers // SPAN
    starts = np.flatnonzero(np.diff(blocks, prepend=-1)).tolist()
    offsets = (holding.numbers % SPAN).astype(np.uint8)
    for start, end in itertools.pairwise([*starts, len(blocks)]):
        count = end - start
        told = [struct.pack("<B", count - 1)]
        if count < SPAN:
            told.append(offsets[start:end].tobytes())
        told += [_column(column[start:end]) for column in holding.columns]
        yield int(blocks[start]), b"".join(told)


def find(data: bytes, offset: int) -> Draws | None:
    """Return what a row says of one sample of its block; None where it does not hold it."""
    count = data[0] + 1
    at, index = 1, offset
    if count < SPAN:
        index = data.find(offset, 1, 1 + count) - 1
        if index < 0:
            return None
        at += count
    values = []
    for _ in Draws._fields:
        width, least = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        start = at + index * width
        values.append(least + int.from_bytes(data[start : start + width], "little"))
        at += count * width
    return Draws(*values)


def unpack(block: int, data: bytes) -> Holding:
    """Return all that a row holds."""
    count, at = data[0] + 1, 1
    offsets: Any = np.arange(SPAN)
    if count < SPAN:
        offsets = np.frombuffer(data, np.uint8, count, at)
        at += count
    columns = []
    for _ in Draws._fields:
        width, least = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        over: Any = 0
        if width:
            over = np.frombuffer(data, _TYPES[width], count, at).astype(np.int64)
        columns.append(np.zeros(count, np.int64) + least + over)
        at += count * width
    return Holding(offsets.astype(np.int64) + block * SPAN, tuple(columns))


def pack_blocks(blocks: list[int]) -> bytes:
    """Return the blocks of a holder, in order, in a few bytes."""
    return zlib.compress(np.diff(np.array(blocks, np.int64), prepend=0).tobytes())


def unpack_blocks(data: bytes) -> list[int]:
    """Return what `pack_blocks` packed."""
    found: list[int] = np.cumsum(np.frombuffer(zlib.decompress(data), np.int64)).tolist()
    return found


def gathered(numbers: Numbers, steps: Numbers, tokens: Numbers) -> Holding:
    """Return the draws of a ledger, one entry each, as one entry for each sample."""
    ordered = np.argsort(numbers, kind="stable")
    numbers, steps, tokens = numbers[ordered], steps[ordered], tokens[ordered]
    own, starts, counts = np.unique(numbers, return_index=True, return_counts=True)
    if not len(own):
        return listing(own)
    first, last = np.minimum.reduceat(steps, starts), np.maximum.reduceat(steps, starts)
    return Holding(own, (counts, first, last, np.add.reduceat(tokens, starts)))


def sample_key(key: str) -> str:
    """Return the key of the sample that a conversation was made of."""
    return key.removesuffix(CAPTION)


def _column(values: Numbers) -> bytes:
    least, most = int(values.min()), int(values.max())
    width = next(
        w for w, limit in ((0, 1), (1, 1 << 8), (2, 1 << 16), (4, 1 << 32)) if most - least < limit
    )
    over = (values - least).astype(_TYPES[width]).tobytes() if width else b""
    return _HEAD.pack(width, least) + over
