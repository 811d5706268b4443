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

from uni_moe.data.corpus import Corpus
from uni_moe.data.media import load
from uni_moe.errors import DataError
from uni_moe.model.config import SLOT_KINDS
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.model.prompt import Encoded
from uni_moe.records import MediaRef, Sample


@dataclass(frozen=True)
class Example:
    """One tokenized conversation and the features of its media, in slot order."""

    modality: str
    encoded: Encoded
    features: tuple[tuple[str, Tensor], ...]


class ExampleMaker:
    """Turns samples into examples, remembering features by content."""

    def __init__(
        self,
        corpora: Mapping[str, Corpus],
        processor: UniMoeProcessor,
        model: UniMoeForConditionalGeneration,
    ) -> None:
        self.corpora, self.processor, self.model = corpora, processor, model
        self._features: dict[str, tuple[Tensor, int]] = {}
        self._examples: dict[tuple[str, bool], Example] = {}

    def example(self, sample: Sample, *, to_answer: bool = False) -> Example:
        """Return the example of a sample; `to_answer` ends before the reference answer."""
        key = (sample.key, to_answer)
        if key not in self._examples:
            self._examples[key] = self._make(sample, to_answer=to_answer)
        return self._examples[key]

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
        encoded = self.processor.encode(messages, [rows for _, _, rows in found])
        most = self.model.config.text_config.max_position_embeddings
        if len(encoded.input_ids) > most:
            raise DataError(
                f"The sample {sample.key} takes {len(encoded.input_ids)} positions, the language "
                f"model has {most}.",
                cause="its text and what its media take are too long together; cut, it would teach "
                "something else.",
                remedy="shorten it, take it out of its source, or raise `max_positions` of a tiny "
                "language model.",
            )
        features = tuple((kind, tensor) for kind, tensor, _ in found)
        return Example(sample.modality, encoded, features)


def collate(
    processor: UniMoeProcessor, examples: Sequence[Example], *, padding_side: str = "right"
) -> dict[str, Any]:
    """Return the network's inputs for a batch; `features` maps kind -> stacked features."""
    encoded = [example.encoded for example in examples]
    batch: dict[str, Any] = processor.collate(encoded, padding_side=padding_side)
    features = {}
    for kind in SLOT_KINDS:
        own = [t for example in examples for k, t in example.features if k == kind]
        if own:
            features[kind] = torch.cat(own)
    batch["features"] = features
    return batch
