"""Examples: conversations with their media, as tensors for the network.

Frozen encoders cost once: what they return is kept by the content of the medium while the stage
runs. Each medium is encoded alone, so that its features do not depend on which batch met it first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uni_moe.config import Packing
from uni_moe.data.corpus import Corpus
from uni_moe.data.media import load
from uni_moe.errors import DataError, LineageError
from uni_moe.model.config import SLOT_KINDS
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.model.prompt import IGNORED, Encoded, cut
from uni_moe.records import MediaRef, Sample

UNPACKED = Packing(row_positions=None, rows=None, on_too_long="refuse")


@dataclass(frozen=True)
class Example:
    """One tokenized conversation and the features of its media, in slot order.

    `truncated` counts positions that were cut away.
    """

    modality: str
    encoded: Encoded
    features: tuple[tuple[str, Tensor], ...]
    truncated: int = 0

    @property
    def tokens(self) -> int:
        """How many of its tokens bear loss: nothing predicts the first."""
        return sum(label != IGNORED for label in self.encoded.labels[1:])


class ExampleMaker:
    """Turns samples into examples, remembering features by content."""

    def __init__(
        self,
        corpora: Mapping[str, Corpus],
        processor: UniMoeProcessor,
        model: UniMoeForConditionalGeneration,
        packing: Packing | None = None,
    ) -> None:
        self.corpora, self.processor, self.model = corpora, processor, model
        self.packing = packing or UNPACKED
        self._lengths: dict[str, int] = {}
        self._features: dict[str, tuple[Tensor, int]] = {}
        self._examples: dict[tuple[str, bool], Example] = {}

    def example(self, sample: Sample, *, to_answer: bool = False) -> Example:
        """Return the example of a sample; `to_answer` ends before the reference answer."""
        key = (sample.key, to_answer)
        if key not in self._examples:
            self._examples[key] = self._make(sample, to_answer=to_answer)
        return self._examples[key]

    def length(self, sample: Sample) -> int:
        """Return the positions of a sample's example. No medium is decoded, no encoder runs."""
        if sample.key not in self._lengths:
            encoded, rows = encoded_of(self.processor, sample)
            self._lengths[sample.key] = len(self._fitting(sample, encoded, rows)[0].input_ids)
        return self._lengths[sample.key]

    def features(self, ref: MediaRef, corpus: Corpus) -> tuple[Tensor, int]:
        """Return what the encoder says of one medium, and the positions it takes."""
        if ref.content not in self._features:
            medium = load(ref, corpus.media(ref), video_frames=self.processor.video_frames)
            ready = self.processor.prepare(ref.kind, medium)
            device = next(self.model.parameters()).device
            padding = None if ready.padding is None else ready.padding.to(device)
            found = self.model.encode(ref.kind, ready.values.to(device), padding)
            self._features[ref.content] = found, self.processor.rows(ready)
        return self._features[ref.content]

    def _make(self, sample: Sample, *, to_answer: bool) -> Example:
        corpus = self.corpora[sample.modality]
        turns = sample.turns[:-1] if to_answer else sample.turns
        found = [(ref.kind, *self.features(ref, corpus)) for ref in sample.media]
        messages = [turn.to_message() for turn in turns]
        rows = [count for _, _, count in found]
        whole = self.processor.encode(messages, rows)
        encoded, kept = self._fitting(sample, whole, rows)
        self._check_length(sample, encoded, to_answer=to_answer)
        features = tuple((kind, tensor) for kind, tensor, _ in found[:kept])
        truncated = len(whole.input_ids) - len(encoded.input_ids)
        return Example(sample.modality, encoded, features, truncated)

    def _fitting(
        self, sample: Sample, encoded: Encoded, rows: Sequence[int]
    ) -> tuple[Encoded, int]:
        """Return what of a conversation is used, and how many of its media.

        Raises:
            DataError: it is too long, and to be refused then.
        """
        context = int(self.model.config.text_config.max_position_embeddings)
        most = min(context, self.packing.row_positions or context)
        if len(encoded.input_ids) <= most:
            return encoded, len(rows)
        if self.packing.on_too_long == "truncate":
            return cut(encoded, rows, most, self.processor.vocab_size)
        limit = (
            f"the language model has {most}"
            if most == context
            else f"a packed row takes {most} (`packing.row_positions`)"
        )
        raise DataError(
            f"The sample {sample.key} takes {len(encoded.input_ids)} positions, {limit}.",
            cause="its text and what its media take are too long together; cut, it would teach "
            "something else.",
            remedy="shorten it, take it out of its source, raise the limit (`max_positions` of a "
            "tiny language model), or let the phase cut it: `packing.on_too_long: truncate`.",
        )

    def _check_length(self, sample: Sample, encoded: Encoded, *, to_answer: bool) -> None:
        """Hold an example to the length that steps were planned with.

        Raises:
            LineageError: a medium is not as long as its source was measured.
        """
        planned = None if to_answer else self._lengths.get(sample.key)
        if planned not in (None, len(encoded.input_ids)):
            raise LineageError(
                f"The sample {sample.key} takes {len(encoded.input_ids)} positions, not {planned}.",
                cause="a sound of it is not as long as was measured when it was ingested.",
                remedy="run `dvc repro --force ingest`.",
            )


def encoded_of(processor: UniMoeProcessor, sample: Sample) -> tuple[Encoded, list[int]]:
    """Return a tokenized conversation and the positions of its media, from what was measured."""
    rows = [processor.positions(ref.kind, ref.duration_s) for ref in sample.media]
    return processor.encode([turn.to_message() for turn in sample.turns], rows), rows


def collate(
    processor: UniMoeProcessor, examples: Sequence[Example], *, padding_side: str = "right"
) -> dict[str, Any]:
    """Return the network's inputs for a batch; `features` maps kind -> stacked features."""
    encoded = [example.encoded for example in examples]
    batch: dict[str, Any] = processor.collate(encoded, padding_side=padding_side)
    return batch | {"features": _stacked(examples)}


def pack(processor: UniMoeProcessor, rows: Sequence[Sequence[Example]]) -> dict[str, Any]:
    """Return the network's inputs for rows of examples one behind the other.

    Without an example they are one position of filling: what learns runs, and learns nothing.
    """
    batch: dict[str, Any] = processor.pack([[one.encoded for one in row] for row in rows])
    return batch | {"features": _stacked([one for row in rows for one in row])}


def _stacked(examples: Sequence[Example]) -> dict[str, Tensor]:
    features = {}
    for kind in SLOT_KINDS:
        own = [t for example in examples for k, t in example.features if k == kind]
        if own:
            features[kind] = torch.cat(own)
    return features
