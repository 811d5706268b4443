"""Media as encoders take them: pictures, films and sounds in, tensors out.

Shapes
    C  windows of one sound
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uni_moe.errors import DataError
from uni_moe.model.config import INPUT_OF, MAX_WINDOWS, SLOT_KINDS
from uni_moe.model.encoders.beats_features import RATE_HZ, filterbank, windows


@dataclass(frozen=True)
class Prepared:
    """One medium, ready for its encoder.

    `values` has one row per picture, film or window of sound. `padding` marks filled samples of
    environmental audio, (C, samples).
    """

    kind: str
    values: Tensor
    padding: Tensor | None = None


class MediaPreparingMixin:
    """What a processor does with media; its numbers say which kinds there are, and how large."""

    image_processor: Any
    feature_extractor: Any
    image_rows: int
    video_frames: int
    audio_rows: int
    audio_window_s: int
    speech_rows: int
    speech_window_s: int
    mel_bins: int

    def prepare(self, kind: str, medium: Any) -> Prepared:  # noqa: ANN401 - Pillow, list or array
        """Prepare one medium: a Pillow image, a list of frames, or a mono 16 kHz waveform.

        Raises:
            DataError: it is no medium of that kind, the model reads none, or a sound has more
                windows than the published limit of 20.
        """
        if not self.rows_each(kind):
            raise DataError(
                f"The model takes no {kind}.",
                cause="it was made without an encoder for it."
                if kind in SLOT_KINDS
                else f"media are {', '.join(SLOT_KINDS)}.",
                remedy="leave it out, or use another model.",
            )
        if kind == "image":
            return Prepared(kind, self._pixels([medium]))
        if kind == "video":
            check_film(medium)
            count = len(medium)
            picked = [medium[i * count // self.video_frames] for i in range(self.video_frames)]
            return Prepared(kind, self._pixels(picked)[None])
        sound = np.asarray(medium, dtype=np.float32)
        check_sound(sound)
        return self._sound(kind, sound)

    def rows(self, prepared: Prepared) -> int:
        """Return how many positions a medium takes in a sequence."""
        return self.rows_each(prepared.kind) * len(prepared.values)

    def positions(self, kind: str, duration_s: float | None) -> int:
        """Return how many positions a medium takes, from what was measured of it alone.

        Raises:
            DataError: a sound has more windows than the published limit of 20, or its duration is
                not known.
        """
        if kind in ("image", "video"):
            return self.rows_each(kind)
        if duration_s is None:
            raise DataError(
                f"Nobody knows how long a piece of {kind} is.",
                cause="its reference holds no duration: it was ingested by an earlier version.",
                remedy="run `dvc repro --force ingest`.",
            )
        return self.rows_each(kind) * self.windows(kind, duration_s)

    def rows_each(self, kind: str) -> int:
        """Return the positions of one picture, film or window of sound; 0 where none is read."""
        seen = {"image": self.image_rows, "video": self.image_rows}
        return {**seen, "audio": self.audio_rows, "speech": self.speech_rows}.get(kind, 0)

    def windows(self, kind: str, duration_s: float) -> int:
        """Return in how many windows a sound is cut.

        Raises:
            DataError: they are more than the published limit of 20.
        """
        window_s = self.audio_window_s if kind == "audio" else self.speech_window_s
        count = max(1, ceil(duration_s / window_s))
        if count > MAX_WINDOWS:
            raise DataError(
                f"A sound of {duration_s:.0f} s has {count} windows of {window_s} s.",
                cause=f"the model reads at most {MAX_WINDOWS} windows of one file.",
                remedy="split the recording and ask about its parts.",
            )
        return count

    def preparation(self, kind: str) -> dict[str, Any]:
        """Return every setting that changes what `prepare` makes of a kind of media."""
        if kind == "image":
            return {"image_processor": self.image_processor.to_dict()}
        if kind == "video":
            own = {"video_frames": self.video_frames}
            return {"image_processor": self.image_processor.to_dict(), **own}
        if kind == "audio":
            return {"window_s": self.audio_window_s, "mel_bins": self.mel_bins}
        extractor = {"feature_extractor": self.feature_extractor.to_dict()}
        return {"window_s": self.speech_window_s, **extractor}

    def _pixels(self, images: Sequence[Any]) -> Tensor:
        pixels: Tensor = self.image_processor(list(images), return_tensors="pt")["pixel_values"]
        return pixels

    def _sound(self, kind: str, sound: np.ndarray) -> Prepared:
        self.windows(kind, len(sound) / RATE_HZ)  # before anything is computed of a long one
        window_s = self.audio_window_s if kind == "audio" else self.speech_window_s
        cut, masks = windows(sound, window_s)
        if kind == "audio":
            values = torch.stack([filterbank(w, mel_bins=self.mel_bins) for w in cut])
            return Prepared(kind, values, torch.from_numpy(np.stack(masks)))
        size = window_s * RATE_HZ
        pieces = [sound[i * size : (i + 1) * size] for i in range(len(cut))]
        features = [
            self.feature_extractor(piece, sampling_rate=RATE_HZ, return_tensors="pt")
            for piece in pieces
        ]
        return Prepared(kind, torch.cat([one["input_features"] for one in features]))


def stack_media(prepared: Sequence[Prepared]) -> Mapping[str, Tensor]:
    """Return the network's inputs for the media of a batch."""
    found: dict[str, Tensor] = {}
    for kind in SLOT_KINDS:
        own = [one for one in prepared if one.kind == kind]
        if own:
            found[INPUT_OF[kind]] = torch.cat([one.values for one in own])
        if own and kind == "audio":
            found["audio_padding"] = torch.cat(
                [one.padding for one in own if one.padding is not None]
            )
    return found


def check_film(frames: Any) -> None:  # noqa: ANN401 - what should be a sequence of pictures
    """Refuse what is no film.

    Raises:
        DataError: it has no frames.
    """
    if not hasattr(frames, "__len__") or not len(frames):
        raise DataError(
            "A film without frames is given.",
            cause="a film is a list of pictures, or an array of them.",
            remedy="decode the film first, or leave it out.",
        )


def check_sound(sound: np.ndarray) -> None:
    """Refuse what is no mono sound.

    Raises:
        DataError: it has several channels, no sample, or numbers that are none.
    """
    problem = None
    if sound.ndim != 1:
        problem = f"a sound has the shape {sound.shape}, not (samples,)"
    elif not sound.size:
        problem = "a sound has no sample"
    elif not np.isfinite(sound).all():
        problem = "a sound holds samples that are no numbers"
    if problem is not None:
        raise DataError(
            f"This is no sound to hear: {problem}.",
            cause=f"a sound is a waveform of one channel at {RATE_HZ} Hz.",
            remedy="mix the channels down to one, or leave the sound out.",
        )
