"""Decoding of untrusted sound to mono samples at one rate, a block at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from uni_moe.data.containers import open_container
from uni_moe.errors import DataError

Wave = npt.NDArray[np.float32]
RATE_HZ = 16_000
MAX_DURATION_S = 600.0
_UNKNOWN = 2**32 - 1
_BLOCK = 1 << 16


@dataclass(frozen=True)
class SoundFacts:
    """What a sound file is, found by decoding all of it."""

    duration_s: float
    sample_rate_hz: int
    channels: int
    codec: str


def decode_sound(
    members: Sequence[bytes], *, gap_ms: int | None = None, rate: int = RATE_HZ
) -> Wave:
    """Return sound files, joined with `gap_ms` of silence between, as mono float32 at `rate`.

    Channels are averaged. A file whose peak is above 1 is scaled down to a peak of 1. The sound
    track of a film is taken where the file is a film.

    Raises:
        DataError: a file cannot be decoded, holds NaN or no samples, or the whole is too long.
    """
    waves, _ = _decode_all(members, gap_ms=gap_ms, rate=rate)
    return waves


def measure_sound(members: Sequence[bytes], *, gap_ms: int | None = None) -> SoundFacts:
    """Decode sound files and return what they are together: lowest rate, most channels.

    Raises:
        DataError: as `decode_sound`.
    """
    wave, formats = _decode_all(members, gap_ms=gap_ms, rate=RATE_HZ)
    return SoundFacts(
        duration_s=round(len(wave) / RATE_HZ, 4),
        sample_rate_hz=min(form.rate for form in formats),
        channels=max(form.channels for form in formats),
        codec="+".join(sorted({form.codec for form in formats})),
    )


@dataclass(frozen=True)
class _Format:
    rate: int
    channels: int
    codec: str


def _decode_all(
    members: Sequence[bytes], *, gap_ms: int | None, rate: int
) -> tuple[Wave, list[_Format]]:
    if not members:
        raise _broken("it has no files")
    gap = np.zeros((gap_ms or 0) * rate // 1000, dtype=np.float32)
    pieces: list[Wave] = []
    formats: list[_Format] = []
    for member in members:
        wave, form = _decode_one(member, rate)
        pieces += [gap, wave] if pieces else [wave]
        formats.append(form)
        if sum(map(len, pieces)) > MAX_DURATION_S * rate:
            raise _too_long()
    return np.concatenate(pieces), formats


def _decode_one(data: bytes, rate: int) -> tuple[Wave, _Format]:
    """Decode one file with libsndfile; what that cannot read, with PyAV."""
    if not data:
        raise _broken("it has no bytes")
    if _ends_early(data):
        raise _broken("it ends before the length that its header declares")
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except Exception:  # noqa: BLE001 - whatever libsndfile cannot open, PyAV may
        return _decode_track(data, rate)
    with file:
        form = _Format(file.samplerate, file.channels, f"{file.format}/{file.subtype}".lower())
        if file.frames > MAX_DURATION_S * form.rate:
            raise _too_long()
        wave = _mono(file.blocks(_BLOCK, dtype="float32", always_2d=True), form, rate)
        if file.tell() < file.frames:
            raise _broken(f"{file.tell()} of its {file.frames} samples can be read")
        return wave, form


def _ends_early(data: bytes) -> bool:
    """Tell whether a RIFF or Ogg file is cut; libsndfile would read what is left as the whole.

    A RIFF stream of unknown length declares the largest number, or 0. An Ogg file cut between two
    pages is taken for whole: some recorders leave the mark of the end out of the last page.
    """
    if data[:4] == b"OggS":
        return _page_ends_early(data, data.rindex(b"OggS"))
    declared = int.from_bytes(data[4:8], "little")
    return data[:4] == b"RIFF" and declared != _UNKNOWN and declared + 8 > len(data) + 1


def _page_ends_early(data: bytes, start: int) -> bool:
    """Tell whether an Ogg page is cut: a header of 27 bytes, segment lengths, segments.

    Source: RFC 3533, section 6.
    """
    if start + 27 > len(data):
        return True
    table = data[start + 27 : start + 27 + data[start + 26]]
    return start + 27 + data[start + 26] + sum(table) > len(data)


def _decode_track(data: bytes, rate: int) -> tuple[Wave, _Format]:
    with open_container(data) as box:
        if not box.streams.audio:
            raise DataError(
                "A file has no sound track.",
                cause="it is a silent film or a picture.",
                remedy="give the sound, or name the file as video or image.",
            )
        stream = box.streams.audio[0]
        context = stream.codec_context
        form = _Format(context.sample_rate, context.channels, stream.codec.name)
        return _mono(_track_blocks(box, stream), form, rate), form


def _track_blocks(box: Any, stream: Any) -> Iterator[Wave]:  # noqa: ANN401 - PyAV is untyped
    """Give a track's samples as blocks of [samples, channels]; damaged packets are passed over."""
    to_float = av.AudioResampler(format="fltp")
    for packet in box.demux(stream):
        try:
            decoded = packet.decode()
        except av.error.InvalidDataError:
            continue
        for frame in decoded:
            for floats in to_float.resample(frame):
                yield np.asarray(floats.to_ndarray().T, dtype=np.float32)


def _mono(blocks: Iterator[Wave], form: _Format, rate: int) -> Wave:
    """Average the channels of each block, check it and bring it to `rate`."""
    if not 1 <= form.rate <= 768_000:
        raise _broken(f"a sample rate of {form.rate} Hz is impossible")
    resample = soxr.ResampleStream(form.rate, rate, 1, dtype="float32", quality="HQ")
    pieces: list[Wave] = []
    try:
        pieces += [
            mono if form.rate == rate else resample.resample_chunk(mono)
            for mono in _checked(blocks, form)
        ]
        if form.rate != rate and pieces:
            pieces.append(resample.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
    except DataError:
        raise
    except Exception as error:  # a decoder of untrusted bytes may raise anything
        raise _broken(str(error) or type(error).__name__) from error
    wave = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)
    if not len(wave):
        raise _broken("it holds no samples")
    peak = float(np.abs(wave).max())
    return (wave / peak if peak > 1 else wave).astype(np.float32, copy=False)


def _checked(blocks: Iterator[Wave], form: _Format) -> Iterator[Wave]:
    """Give each block as mono; stop at the limit of duration and at what is no number."""
    seen = 0
    for block in blocks:
        seen += len(block)
        if seen > MAX_DURATION_S * form.rate:
            raise _too_long()
        mono = block.astype(np.float64).mean(axis=1).astype(np.float32)
        if not np.isfinite(mono).all():
            raise _not_finite()
        yield mono


def _broken(reason: str) -> DataError:
    return DataError(
        f"A sound cannot be decoded: {reason}.",
        cause="the file is empty, cut, damaged or no sound.",
        remedy="play it; replace it, or convert it (`ffmpeg -i IN OUT.flac`).",
    )


def _too_long() -> DataError:
    return DataError(
        f"A sound of more than {MAX_DURATION_S:.0f} s is refused.",
        cause="so long a sound would be cut in silence, or fill the memory.",
        remedy="split long recordings before ingest.",
    )


def _not_finite() -> DataError:
    return DataError(
        "A sound holds samples that are no numbers.",
        cause="a float file with NaN or infinity.",
        remedy="clean the file, or save it as 16-bit FLAC.",
    )
