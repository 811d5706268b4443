"""The processor: conversations and media in, tensors for the network out.

Shapes
    B  sequences    T  positions
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoProcessor,
    BatchFeature,
    CLIPImageProcessorPil,
    WhisperFeatureExtractor,
)

from uni_moe.errors import ConfigError, DataError
from uni_moe.model.chat import ChatMixin, check_tensors, media_in, template
from uni_moe.model.config import INPUT_OF, SLOT_KINDS, UniMoeConfig
from uni_moe.model.preparing import MediaPreparingMixin, Prepared, stack_media
from uni_moe.model.prompt import IGNORED, Encoded, Message, Prompt, items
from uni_moe.model.segments import FILLING

PROCESSOR = "processor_config.json"  # the file that makes a model's folder hold one of ours


class UniMoeProcessor(MediaPreparingMixin, ChatMixin):
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
        kwargs.setdefault("chat_template", template(system_prompt))
        super().__init__(image_processor, tokenizer, feature_extractor, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        """The names of the network's inputs."""
        return ["input_ids", "attention_mask", *INPUT_OF.values(), "audio_padding"]

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

        Media that the network cannot read need no processor or extractor, and are refused later.

        Raises:
            ConfigError: the extractor's window of speech is not the configuration's, or the
                tokenizer has more tokens than the language model.
        """
        _check_tokens(tokenizer, config.text_config.vocab_size)
        speech, audio = config.speech_connector or {}, config.audio_connector or {}
        if tokenizer.pad_token is None:  # as LLaMA's own; what is padded is masked
            tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
        if config.speech_config is not None:
            _check_window(feature_extractor.chunk_length, speech.get("window_s", 30))
        return cls(
            image_processor or CLIPImageProcessorPil(),
            tokenizer,
            feature_extractor or WhisperFeatureExtractor(),
            vocab_size=config.text_config.vocab_size,
            image_rows=config.image_rows if config.vision_config is not None else 0,
            video_frames=config.video_frames,
            audio_rows=audio.get("query_tokens", 0) if config.audio_config is not None else 0,
            audio_window_s=audio.get("window_s", 30),
            speech_rows=speech.get("query_tokens", 0) if config.speech_config is not None else 0,
            speech_window_s=speech.get("window_s", 30),
            mel_bins=config.audio_config.mel_bins if config.audio_config is not None else 128,
            system_prompt=system_prompt,
        )

    def encode(
        self, messages: Sequence[Message], rows: Sequence[int], *, ask: bool = True
    ) -> Encoded:
        """Tokenize a conversation whose slots take `rows` positions, in order."""
        return Prompt(self.system_prompt).encode(
            messages, self.tokenizer, rows=rows, slot_ids=self._slot_ids(), ask=ask
        )

    def _slot_ids(self) -> dict[str, int]:
        return {kind: self.vocab_size + i for i, kind in enumerate(SLOT_KINDS)}

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
        longest = max((sum(len(one.input_ids) for one in row) for row in rows), default=0)
        length, rows = max(1, longest), rows or [[]]  # without a conversation: one of filling
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

    def __call__(  # noqa: PLR0913 - conversations, or texts by the conventions of transformers
        self,
        conversations: Sequence[Sequence[Message]] = (),
        media: Sequence[Sequence[tuple[str, Any]]] | None = None,
        *,
        text: str | Sequence[str] | None = None,
        images: Any = None,  # noqa: ANN401 - one medium, a list of them, or lists by text
        videos: Any = None,  # noqa: ANN401
        audio: Any = None,  # noqa: ANN401
        speech: Any = None,  # noqa: ANN401
        to_answer: bool = False,
        ask: bool = True,
        padding_side: str | None = None,
        padding: bool = True,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Prepare a batch of conversations, or of texts with marks; any media in any order.

        Args:
            conversations: each a list of messages in chat form.
            media: for each conversation its media in slot order, as (kind, medium); without them
                the items of the messages hold their media.
            text: instead of conversations, prompts with the marks <image>, <video>, <audio> and
                <speech>; padded left.
            images: the pictures of the texts' marks, in order over the batch.
            videos: their films.
            audio: their sounds.
            speech: their speech.
            to_answer: prompts to generate from (padded left) instead of examples to learn from.
            ask: without it no mark asks for an answer after a last question.
            padding_side: "left" or "right", instead of the usual one.
            padding: True, as a batch is one tensor.
            return_tensors: "pt", the only kind there is.

        Raises:
            DataError: slots or marks and media differ, or something is no medium.
        """
        check_tensors(return_tensors)
        if (text is None) == (not conversations) or not padding:
            raise DataError(
                "A processor takes conversations or texts, padded to one length.",
                cause="both or neither are given, or padding is switched off.",
                remedy="give `conversations`, or `text` with its media.",
            )
        prepared: list[Prepared] = []
        if text is not None:
            given = {"image": images, "video": videos, "audio": audio, "speech": speech}
            encoded = self._texts([text] if isinstance(text, str) else text, given, prepared)
        else:
            encoded = self._conversations(conversations, media, prepared, ask=ask)
        side = padding_side or ("left" if to_answer or text is not None else "right")
        batch: dict[str, Tensor] = self.collate(encoded, padding_side=side)
        if to_answer or text is not None:
            del batch["labels"]
        return BatchFeature({**batch, **stack_media(prepared)})

    def _conversations(
        self,
        conversations: Sequence[Sequence[Message]],
        media: Sequence[Sequence[tuple[str, Any]]] | None,
        prepared: list[Prepared],
        *,
        ask: bool,
    ) -> list[Encoded]:
        """Encode conversations and add their media to `prepared`."""
        every = [media_in(one) for one in conversations] if media is None else media
        if len(every) != len(conversations):
            raise DataError(
                f"{len(conversations)} conversations are given, but media for {len(every)}.",
                cause="every conversation has a list of media, empty where it has none.",
                remedy="give one list of media for each.",
            )
        encoded = []
        for messages, own in zip(conversations, every, strict=True):
            ready = [self.prepare(kind, medium) for kind, medium in own]
            _check_slots(messages, ready)
            encoded.append(self.encode(messages, [self.rows(one) for one in ready], ask=ask))
            prepared += ready
        return encoded

    def _texts(
        self, texts: Sequence[str], given: Mapping[str, Any], prepared: list[Prepared]
    ) -> list[Encoded]:
        """Encode texts with marks and add their media to `prepared`."""
        encoded = []
        for marked in self._from_texts(texts, given):
            ready = [self.prepare(kind, medium) for kind, medium in marked.media]
            rows = [self.rows(one) for one in ready]
            encoded.append(marked.encode(self.tokenizer, rows, self._slot_ids()))
            prepared += ready
        return encoded


def _check_tokens(tokenizer: Any, known: int) -> None:  # noqa: ANN401 - any of transformers
    """Refuse tokens behind the language model's own: their ids are those of slots for media."""
    if len(tokenizer) > known:
        raise ConfigError(
            f"The tokenizer has {len(tokenizer)} tokens, the language model reads {known}.",
            cause="tokens were added, say for padding, and the embeddings did not grow with them.",
            remedy="take the tokenizer as it was trained with (padding may be any token of it), or "
            "call `resize_token_embeddings` on the language model before it is imported.",
        )


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


AutoProcessor.register(UniMoeConfig, UniMoeProcessor)
