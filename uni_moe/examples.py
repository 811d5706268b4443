"""Examples: conversations with their media, as tensors for the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uni_moe.config import Packing
from uni_moe.data.corpus import Corpus
from uni_moe.errors import DataError, LineageError
from uni_moe.feature_maker import FeatureMaker
from uni_moe.model.config import SLOT_KINDS
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.model.prompt import IGNORED, Encoded, cut
from uni_moe.platform import device
from uni_moe.recent import Recent
from uni_moe.records import MediaRef, Sample

_EXAMPLES_BYTES = 2**28
_TOKEN_BYTES = 48  # of one position in Python's lists, at most
UNPACKED = Packing(row_positions=None, rows=None, on_too_long="refuse")


@dataclass(frozen=True)
class Measure:
    """How many tokens of a conversation bear loss, and how many positions are cut away."""

    tokens: int
    truncated: int


@dataclass(frozen=True)
class Example:
    """One tokenized conversation. It holds no features: they are looked up when asked for.

    `truncated` counts positions that were cut away.
    """

    modality: str
    encoded: Encoded
    media: tuple[MediaRef, ...]
    look_up: Callable[[MediaRef], Tensor]
    truncated: int = 0

    @property
    def features(self) -> tuple[tuple[str, Tensor], ...]:
        """The kind and the features of each of its media, in slot order."""
        return tuple((ref.kind, self.look_up(ref)) for ref in self.media)

    @property
    def tokens(self) -> int:
        """How many of its tokens bear loss: nothing predicts the first."""
        return sum(label != IGNORED for label in self.encoded.labels[1:])


class ExampleMaker:
    """Turns samples into examples, remembering those it made of late."""

    def __init__(
        self,
        corpora: Mapping[str, Corpus],
        processor: UniMoeProcessor,
        model: UniMoeForConditionalGeneration,
        features: FeatureMaker | None = None,
        packing: Packing | None = None,
    ) -> None:
        """Without a maker of features, the model's own are remembered while this one lives."""
        self.corpora, self.processor, self.model = corpora, processor, model
        self.feature_maker = features or FeatureMaker(model, processor)
        self.packing = packing or UNPACKED
        self._lengths: dict[str, int] = {}
        self._examples: Recent[tuple[str, bool], Example] = Recent(_EXAMPLES_BYTES)

    def example(self, sample: Sample, *, to_answer: bool = False) -> Example:
        """Return the example of a sample; `to_answer` ends before the reference answer."""
        key = (sample.key, to_answer)
        found = self._examples.get(key)
        if found is None:
            found = self._make(sample, to_answer=to_answer)
            self._examples.put(key, found, _TOKEN_BYTES * len(found.encoded.input_ids))
        return found

    def length(self, sample: Sample) -> int:
        """Return the positions of a sample's example. No medium is decoded, no encoder runs."""
        if sample.key not in self._lengths:
            encoded, rows = encoded_of(self.processor, sample)
            self._lengths[sample.key] = len(self._fitting(sample, encoded, rows)[0].input_ids)
        return self._lengths[sample.key]

    def measure(self, sample: Sample) -> Measure:
        """Say what a sample's example would be. No medium is decoded, no encoder runs."""
        whole, rows = encoded_of(self.processor, sample)
        encoded, _ = self._fitting(sample, whole, rows)
        tokens = sum(label != IGNORED for label in encoded.labels[1:])
        return Measure(tokens, len(whole.input_ids) - len(encoded.input_ids))

    def features(self, ref: MediaRef, corpus: Corpus) -> tuple[Tensor, int]:
        """Return what the encoder says of one medium, and the positions it takes."""
        return self.feature_maker.features(ref, corpus)

    def _make(self, sample: Sample, *, to_answer: bool) -> Example:
        corpus = self.corpora[sample.modality]
        turns = sample.turns[:-1] if to_answer else sample.turns
        rows = [self.feature_maker.rows(ref, corpus) for ref in sample.media]
        messages = [turn.to_message() for turn in turns]
        whole = self.processor.encode(messages, rows)
        encoded, kept = self._fitting(sample, whole, rows)
        self._check_length(sample, encoded, to_answer=to_answer)

        def look_up(ref: MediaRef) -> Tensor:
            return self.features(ref, corpus)[0]

        truncated = len(whole.input_ids) - len(encoded.input_ids)
        return Example(sample.modality, encoded, sample.media[:kept], look_up, truncated)

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
            features[kind] = stacked(own)
    return features


def stacked(features: Sequence[Tensor]) -> Tensor:
    """Join features of one kind; where there is an accelerator, in memory that it copies fast."""
    if device().type == "cpu":
        return torch.cat(list(features))
    shape = (sum(map(len, features)), *features[0].shape[1:])
    joined = torch.empty(shape, dtype=features[0].dtype, pin_memory=True)
    return torch.cat(list(features), out=joined)
