"""How long conversations are, before any medium is read, and what becomes of those too long."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from uni_moe.config import Packing
from uni_moe.errors import DataError, bullets
from uni_moe.extent import Extent, extent_of
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.model.prompt import Encoded, cut
from uni_moe.records import Sample

UNPACKED = Packing(row_positions=None, rows=None, on_too_long="refuse")


@dataclass(frozen=True)
class Fitted:
    """What of a conversation is used: its positions, and its first so many media."""

    encoded: Encoded
    media: int
    truncated: int  # positions that were cut away

    @property
    def tokens(self) -> int:
        """How many of its tokens bear loss."""
        return self.encoded.tokens


class Lengths:
    """Measures conversations by their tokens and by what ingest measured of their media."""

    def __init__(
        self, processor: UniMoeProcessor, context: int, packing: Packing | None = None
    ) -> None:
        """Let conversations take as many positions as the language model and a packed row do."""
        self.processor, self.context, self.packing = processor, context, packing or UNPACKED
        self.most = min(context, self.packing.row_positions or context)
        self._known: dict[str, int] = {}

    def of(self, sample: Sample) -> int:
        """Return the positions that a sample takes. No medium is decoded, no encoder runs.

        Raises:
            DataError: it is too long, and to be refused then.
        """
        if sample.key not in self._known:
            self._known[sample.key] = len(self.fitted(sample).encoded.input_ids)
        return self._known[sample.key]

    def of_gone(self, extent: Extent) -> int:
        """Return the positions that a conversation would take that is not here any more."""
        return extent.cut(self.most)[0]

    def fitted(self, sample: Sample) -> Fitted:
        """Return what of a sample is used.

        Raises:
            DataError: it is too long, and to be refused then.
        """
        encoded, rows = encoded_of(self.processor, sample)
        most, length = self.most, len(encoded.input_ids)
        if length <= most:
            return Fitted(encoded, len(rows), 0)
        if self.packing.on_too_long == "truncate":
            kept, media = cut(encoded, rows, most, self.processor.vocab_size)
            return Fitted(kept, media, length - len(kept.input_ids))
        limit = (
            f"the language model has {most}"
            if most == self.context
            else f"a packed row takes {most} (`packing.row_positions`)"
        )
        raise DataError(
            f"The sample {sample.key} takes {length} positions, {limit}.",
            cause="its text and what its media take are too long together; cut, it would teach "
            "something else.",
            remedy="shorten it, take it out (`uni-moe remove KEY`), raise the limit "
            "(`max_positions` of a tiny language model), or let the phase cut it: "
            "`packing.on_too_long: truncate`.",
        )


def check_lengths(lengths: Lengths, samples: Iterable[Sample]) -> None:
    """Refuse conversations that do not fit, before anything is learned from one.

    Raises:
        DataError: some are too long, and to be refused then; all of them at once.
    """
    found: dict[str, DataError] = {}
    for sample in samples:
        try:
            lengths.of(sample)
        except DataError as error:
            found[sample.key] = error
    if found:
        told = [e.what if key in e.what else f"{key}: {e.what}" for key, e in found.items()]
        raise DataError(
            f"{len(found)} conversations do not fit:{bullets(told)}",
            cause=" ".join(dict.fromkeys(error.cause for error in found.values())),
            remedy=" ".join(dict.fromkeys(error.remedy for error in found.values())),
        )


def encoded_of(processor: UniMoeProcessor, sample: Sample) -> tuple[Encoded, list[int]]:
    """Return a tokenized conversation and the positions of its media, from what was measured."""
    rows = [processor.positions(ref.kind, ref.duration_s) for ref in sample.media]
    return processor.encode([turn.to_message() for turn in sample.turns], rows), rows


def extent_of_sample(processor: UniMoeProcessor, sample: Sample) -> Extent:
    """Return how many positions a conversation takes, uncut, and where its media stand.

    Raises:
        DataError: a medium of it is longer than any model reads.
    """
    encoded, rows = encoded_of(processor, sample)
    return extent_of(encoded.input_ids, rows, processor.vocab_size)


def tokens_of(processor: UniMoeProcessor, sample: Sample) -> int:
    """Return how many tokens of an uncut conversation bear loss; its media make no difference."""
    messages = [turn.to_message() for turn in sample.turns]
    return processor.encode(messages, [1] * len(sample.media)).tokens
