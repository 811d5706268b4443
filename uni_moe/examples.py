"""Examples: conversations with their media, as tensors for the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from uni_moe.config import Packing
from uni_moe.data.corpus import Corpus
from uni_moe.errors import LineageError
from uni_moe.feature_maker import FeatureMaker
from uni_moe.lengths import Fitted, Lengths
from uni_moe.model.config import SLOT_KINDS
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.model.prompt import Encoded
from uni_moe.platform import device
from uni_moe.recent import Recent
from uni_moe.records import MediaRef, Sample

_EXAMPLES_BYTES = 2**28
_TOKEN_BYTES = 48  # of one position in Python's lists, at most


@dataclass(frozen=True)
class Example:
    """One tokenized conversation. It holds no features: they are looked up when asked for.

    Looking up raises a LineageError where a medium is not as long as its source was measured.
    """

    modality: str
    fitted: Fitted
    media: tuple[MediaRef, ...]
    look_up: Callable[[MediaRef], Tensor]

    @property
    def encoded(self) -> Encoded:
        """The tokens and labels."""
        return self.fitted.encoded

    @property
    def features(self) -> tuple[tuple[str, Tensor], ...]:
        """The kind and the features of each of its media, in slot order."""
        return tuple((ref.kind, self.look_up(ref)) for ref in self.media)


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
        context = int(model.config.text_config.max_position_embeddings)
        self.lengths = Lengths(processor, context, packing)
        self._examples: Recent[tuple[str, bool], Example] = Recent(_EXAMPLES_BYTES)

    def example(self, sample: Sample, *, to_answer: bool = False) -> Example:
        """Return the example of a sample; `to_answer` ends before the reference answer."""
        key = (sample.key, to_answer)
        found = self._examples.get(key)
        if found is None:
            found = self._make(sample, to_answer=to_answer)
            self._examples.put(key, found, _TOKEN_BYTES * len(found.encoded.input_ids))
        return found

    def features(self, ref: MediaRef, corpus: Corpus) -> tuple[Tensor, int]:
        """Return what the encoder says of one medium, and the positions it takes."""
        return self.feature_maker.features(ref, corpus)

    @property
    def encode_s(self) -> float:
        """How long encoders were at work for it, in seconds."""
        return self.feature_maker.encode_s

    def share(self, samples: Iterable[Sample]) -> None:
        """Let other ranks see what was computed here of these samples' media."""
        self.feature_maker.share(ref for sample in samples for ref in sample.media)

    def _make(self, sample: Sample, *, to_answer: bool) -> Example:
        corpus = self.corpora[sample.modality]
        said = replace(sample, turns=sample.turns[:-1]) if to_answer else sample
        fitted = self.lengths.fitted(said)

        def look_up(ref: MediaRef) -> Tensor:
            found, positions = self.features(ref, corpus)
            planned = self.processor.positions(ref.kind, ref.duration_s)
            if positions != planned:
                raise LineageError(
                    f"A piece of {ref.kind} of {sample.key} takes {positions} positions, not "
                    f"{planned}.",
                    cause="it is not as long as was measured when it was ingested.",
                    remedy="run `dvc repro --force ingest`.",
                )
            return found

        return Example(sample.modality, fitted, sample.media[: fitted.media], look_up)


def collate(
    processor: UniMoeProcessor, examples: Sequence[Example], *, padding_side: str = "right"
) -> dict[str, Any]:
    """Return the network's inputs for a batch; `features` maps kind -> stacked features."""
    encoded = [example.encoded for example in examples]
    batch: dict[str, Any] = processor.collate(encoded, padding_side=padding_side)
    return batch | {"features": _features(examples)}


def pack(processor: UniMoeProcessor, rows: Sequence[Sequence[Example]]) -> dict[str, Any]:
    """Return the network's inputs for rows of examples one behind the other.

    Without an example they are one position of filling: what learns runs, and learns nothing.
    """
    batch: dict[str, Any] = processor.pack([[one.encoded for one in row] for row in rows])
    return batch | {"features": _features([one for row in rows for one in row])}


def _features(examples: Sequence[Example]) -> dict[str, Tensor]:
    every = [(kind, tensor) for example in examples for kind, tensor in example.features]
    by_kind = {kind: [t for k, t in every if k == kind] for kind in SLOT_KINDS}
    return {kind: stacked(own) for kind, own in by_kind.items() if own}


def stacked(features: Sequence[Tensor]) -> Tensor:
    """Join features of one kind; where there is an accelerator, in memory that it copies fast."""
    if device().type == "cpu":
        return torch.cat(list(features))
    shape = (sum(map(len, features)), *features[0].shape[1:])
    joined = torch.empty(shape, dtype=features[0].dtype, pin_memory=True)
    return torch.cat(list(features), out=joined)
