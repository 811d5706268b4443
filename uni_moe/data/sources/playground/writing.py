"""Writers of PNG, GIF and WAV whose bytes never change: nothing in them is left to a library.

Compressors give other bytes in other versions. So pixels are stored plain, and sound is stored as
8-bit mu-law, half the size of 16-bit PCM.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def png(pixels: Pixels) -> bytes:
    """Return an 8-bit RGB PNG of [height, width, 3] pixels, up to 64 KiB of them.

    Source: PNG specification (RFC 2083); one stored block of deflate (RFC 1951, 3.2.4).
    """
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    stored = b"\x01" + struct.pack("<HH", len(rows), len(rows) ^ 0xFFFF) + rows
    body = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(rows))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND")


def _chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def gif(frames: Sequence[Pixels], palette: Pixels, *, frame_ms: int) -> bytes:
    """Return an endless GIF of [height, width] frames of indices into at most 128 colours.

    Every LZW code is a literal of one byte: a clear code comes before codes would grow to 9 bits.
    Source: GIF89a specification, appendix F.
    """
    height, width = frames[0].shape
    colors = np.zeros((128, 3), dtype=np.uint8)
    colors[: len(palette)] = palette
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF6, 0, 0) + colors.tobytes()
    loop = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
    control = b"\x21\xf9\x04\x04" + struct.pack("<H", frame_ms // 10) + b"\0\0"
    place = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0)
    body = b"".join(control + place + _literals(frame.tobytes()) for frame in frames)
    return head + loop + body + b"\x3b"


def _literals(indices: bytes, *, run: int = 120) -> bytes:
    """Return the image data of a frame: minimum code size 7, so 128 is clear and 129 is the end."""
    runs = [b"\x80" + indices[start : start + run] for start in range(0, len(indices), run)]
    codes = b"".join(runs) + b"\x81"
    blocks = [codes[start : start + 255] for start in range(0, len(codes), 255)]
    return b"\x07" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def wav(wave: npt.NDArray[np.float64], *, rate_hz: int) -> bytes:
    """Return a mono mu-law WAV of samples in [-1, 1]. Source: ITU-T G.711, mu-law."""
    codes = _mu_law(wave).tobytes()
    form = struct.pack("<HHIIHHH", 7, 1, rate_hz, rate_hz, 1, 8, 0)
    padded = codes + b"\0" * (len(codes) % 2)
    parts = (
        b"WAVEfmt " + struct.pack("<I", len(form)) + form,
        b"fact" + struct.pack("<II", 4, len(codes)),
        b"data" + struct.pack("<I", len(codes)) + padded,
    )
    body = b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _mu_law(wave: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    whole = np.rint(np.clip(wave, -1, 1) * 32767).astype(np.int32)
    biased = np.minimum(np.abs(whole), 32635) + 0x84
    exponent = np.searchsorted(2 ** np.arange(8, 15), biased, side="right")
    mantissa = (biased >> (exponent + 3)) & 0x0F
    sign = np.where(whole < 0, 0x80, 0)
    return np.asarray(~(sign | (exponent << 4) | mantissa) & 0xFF, dtype=np.uint8)
