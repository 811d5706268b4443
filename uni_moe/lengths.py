"""How long conversations are, before any medium is read, and what becomes of those too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from uni_moe.config import Packing
from uni_moe.errors import DataError
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.model.prompt import IGNORED, Encoded, cut
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
        """How many tokens bear loss: nothing predicts the first."""
        return sum(label != IGNORED for label in self.encoded.labels[1:])


class Lengths:
    """Measures conversations by their tokens and by what ingest measured of their media."""

    def __init__(
        self, processor: UniMoeProcessor, context: int, packing: Packing | None = None
    ) -> None:
        """Let conversations take as many positions as the language model and a packed row do."""
        self.processor, self.context, self.packing = processor, context, packing or UNPACKED
        self._known: dict[str, int] = {}

    def of(self, sample: Sample) -> int:
        """Return the positions that a sample takes. No medium is decoded, no encoder runs.

        Raises:
            DataError: it is too long, and to be refused then.
        """
        if sample.key not in self._known:
            self._known[sample.key] = len(self.fitted(sample).encoded.input_ids)
        return self._known[sample.key]

    def planned(self, sample: Sample) -> int | None:
        """Return what `of` has returned, None where nobody asked."""
        return self._known.get(sample.key)

    def fitted(self, sample: Sample) -> Fitted:
        """Return what of a sample is used.

        Raises:
            DataError: it is too long, and to be refused then.
        """
        encoded, rows = encoded_of(self.processor, sample)
        return self.fit(sample.key, encoded, rows)

    def fit(self, key: str, encoded: Encoded, rows: Sequence[int]) -> Fitted:
        """Return what of a conversation is used whose media take so many rows.

        Raises:
            DataError: it is too long, and to be refused then.
        """
        most = min(self.context, self.packing.row_positions or self.context)
        length = len(encoded.input_ids)
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
            f"The sample {key} takes {length} positions, {limit}.",
            cause="its text and what its media take are too long together; cut, it would teach "
            "something else.",
            remedy="shorten it, take it out of its source, raise the limit (`max_positions` of a "
            "tiny language model), or let the phase cut it: `packing.on_too_long: truncate`.",
        )


def encoded_of(processor: UniMoeProcessor, sample: Sample) -> tuple[Encoded, list[int]]:
    """Return a tokenized conversation and the positions of its media, from what was measured."""
    rows = [processor.positions(ref.kind, ref.duration_s) for ref in sample.media]
    return processor.encode([turn.to_message() for turn in sample.turns], rows), rows
