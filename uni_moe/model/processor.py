"""The processor: conversations and media in, tensors for the network out.

Shapes
    B  sequences    T  positions    C  windows of one sound
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from uni_moe.errors import ConfigError, DataError
from uni_moe.model.config import MAX_WINDOWS, SLOT_KINDS, UniMoeConfig
from uni_moe.model.encoders.beats_features import RATE_HZ, filterbank, windows
from uni_moe.model.prompt import IGNORED, Encoded, Message, Prompt, items
from uni_moe.model.segments import FILLING

INPUT_OF = {
    "image": "pixel_values",
    "video": "video_pixel_values",
    "audio": "audio_fbank",
    "speech": "speech_mel",
}


@dataclass(frozen=True)
class Prepared:
    """One medium, ready for its encoder.

    `values` has one row per picture, film or window of sound. `padding` marks filled samples of
    environmental audio, (C, samples).
    """

    kind: str
    values: Tensor
    padding: Tensor | None = None


class UniMoeProcessor(ProcessorMixin):  # type: ignore[misc] # transformers is untyped here
    """Tokenizer, picture and sound preprocessing, and the template, saved as one.

    Numbers beside the three parts say how many rows each medium takes in a sequence and how long a
    window of sound is.
    """

    valid_processor_kwargs = None

    def __init__(  # noqa: PLR0913 - transformers saves each argument by name
        self,
        image_processor: Any = None,  # noqa: ANN401
        tokenizer: Any = None,  # noqa: ANN401
        feature_extractor: Any = None,  # noqa: ANN401
        vocab_size: int = 0,
        image_rows: int = 576,
        video_frames: int = 8,
        audio_rows: int = 50,
        audio_window_s: int = 30,
        speech_rows: int = 50,
        speech_window_s: int = 30,
        mel_bins: int = 128,
        system_prompt: str = "",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        self.vocab_size = vocab_size
        self.image_rows = image_rows
        self.video_frames = video_frames
        self.audio_rows = audio_rows
        self.audio_window_s = audio_window_s
        self.speech_rows = speech_rows
        self.speech_window_s = speech_window_s
        self.mel_bins = mel_bins
        self.system_prompt = system_prompt
        super().__init__(image_processor, tokenizer, feature_extractor, **kwargs)

    @classmethod
    def for_model(
        cls,
        config: UniMoeConfig,
        *,
        tokenizer: Any,  # noqa: ANN401
        image_processor: Any,  # noqa: ANN401
        feature_extractor: Any,  # noqa: ANN401
        system_prompt: str,
    ) -> UniMoeProcessor:
        """Build the processor that fits a configuration; a tokenizer without padding gets one.

        Raises:
            ConfigError: the extractor's window of speech is not the configuration's.
        """
        speech, audio = config.speech_connector or {}, config.audio_connector or {}
        if tokenizer.pad_token is None:  # as LLaMA's own; what is padded is masked
            tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
        if config.speech_config is not None:
            _check_window(feature_extractor.chunk_length, speech.get("window_s", 30))
        return cls(
            image_processor,
            tokenizer,
            feature_extractor,
            vocab_size=config.text_config.vocab_size,
            image_rows=config.image_rows if config.vision_config is not None else 0,
            video_frames=config.video_frames,
            audio_rows=audio.get("query_tokens", 0),
            audio_window_s=audio.get("window_s", 30),
            speech_rows=speech.get("query_tokens", 0),
            speech_window_s=speech.get("window_s", 30),
            mel_bins=config.audio_config.mel_bins if config.audio_config is not None else 128,
            system_prompt=system_prompt,
        )

    def prepare(self, kind: str, medium: Any) -> Prepared:  # noqa: ANN401 - Pillow, list or array
        """Prepare one medium: a Pillow image, a list of frames, or a mono 16 kHz waveform.

        Raises:
            DataError: a sound has more windows than the published limit of 20.
        """
        if kind == "image":
            return Prepared(kind, self._pixels([medium]))
        if kind == "video":
            count = len(medium)
            picked = [medium[i * count // self.video_frames] for i in range(self.video_frames)]
            return Prepared(kind, self._pixels(picked)[None])
        return self._sound(kind, np.asarray(medium, dtype=np.float32))

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
        """Return how many positions a picture, a film or one window of a sound takes."""
        per_value = {
            "image": self.image_rows,
            "video": self.image_rows,
            "audio": self.audio_rows,
            "speech": self.speech_rows,
        }
        return per_value[kind]

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

    def encode(self, messages: Sequence[Message], rows: Sequence[int]) -> Encoded:
        """Tokenize a conversation whose slots take `rows` positions, in order."""
        slot_ids = {kind: self.vocab_size + i for i, kind in enumerate(SLOT_KINDS)}
        return Prompt(self.system_prompt).encode(
            messages, self.tokenizer, rows=rows, slot_ids=slot_ids
        )

    def collate(
        self, encoded: Sequence[Encoded], *, padding_side: str = "right"
    ) -> dict[str, Tensor]:
        """Stack conversations into input_ids, attention_mask and labels, all (B, T)."""
        length = max(len(one.input_ids) for one in encoded)
        pad = self.tokenizer.pad_token_id

        def stack(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
            filled = []
            for row in rows:
                rest = [fill] * (length - len(row))
                filled.append([*row, *rest] if padding_side == "right" else [*rest, *row])
            return torch.tensor(filled)

        return {
            "input_ids": stack([one.input_ids for one in encoded], pad),
            "attention_mask": stack([[1] * len(one.input_ids) for one in encoded], 0),
            "labels": stack([one.labels for one in encoded], IGNORED),
        }

    def pack(self, rows: Sequence[Sequence[Encoded]]) -> dict[str, Tensor]:
        """Lay conversations one behind the other in rows: input_ids, labels and segment_BT, (B, T).

        Segments are numbered in the order of the rows; what fills up a row is FILLING.
        """
        length = max(sum(len(one.input_ids) for one in row) for row in rows)
        table: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "segment_BT": []}
        number = 0
        for row in rows:
            ids = [i for one in row for i in one.input_ids]
            labels = [label for one in row for label in one.labels]
            segment = []
            for one in row:
                segment += [number] * len(one.input_ids)
                number += 1
            rest = length - len(ids)
            table["input_ids"].append(ids + [self.tokenizer.pad_token_id] * rest)
            table["labels"].append(labels + [IGNORED] * rest)
            table["segment_BT"].append(segment + [FILLING] * rest)
        return {name: torch.tensor(filled) for name, filled in table.items()}

    def __call__(
        self,
        conversations: Sequence[Sequence[Message]],
        media: Sequence[Sequence[tuple[str, Any]]] = (),
        *,
        to_answer: bool = False,
        padding_side: str | None = None,
    ) -> BatchFeature:
        """Prepare a batch of conversations.

        Args:
            conversations: each a list of messages in chat form.
            media: for each conversation its media in slot order, as (kind, medium).
            to_answer: prompts to generate from (padded left) instead of examples to learn from.
            padding_side: "left" or "right", instead of the usual one.

        Raises:
            DataError: slots and media of a conversation differ.
        """
        every = list(media) or [[] for _ in conversations]
        encoded, prepared = [], []
        for messages, own in zip(conversations, every, strict=True):
            ready = [self.prepare(kind, medium) for kind, medium in own]
            _check_slots(messages, ready)
            rows = [self.rows(one) for one in ready]
            encoded.append(self.encode(messages, rows))
            prepared += ready
        side = padding_side or ("left" if to_answer else "right")
        batch: dict[str, Tensor] = self.collate(encoded, padding_side=side)
        if to_answer:
            del batch["labels"]
        return BatchFeature({**batch, **_stack_media(prepared)})

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


def _check_window(chunk_s: int, window_s: int) -> None:
    if chunk_s != window_s:
        raise ConfigError(
            f"Speech is cut in windows of {window_s} s, but its extractor takes {chunk_s} s.",
            cause="a longer window would be cut off in silence, a shorter one filled with it.",
            remedy="set `model.speech_connector.window_s` to the speech encoder's window.",
        )


def _check_slots(messages: Sequence[Message], ready: Sequence[Prepared]) -> None:
    asked = [
        item["type"] for message in messages for item in items(message) if item["type"] != "text"
    ]
    given = [one.kind for one in ready]
    if asked != given:
        raise DataError(
            f"The conversation has slots for {asked}, but media {given} are given.",
            cause="every slot needs one medium of its kind, in order.",
            remedy="give the missing media or remove the slots.",
        )


def _stack_media(prepared: Sequence[Prepared]) -> Mapping[str, Tensor]:
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


AutoProcessor.register(UniMoeConfig, UniMoeProcessor)
