"""Where samples are, by modality, from the last artifact on their way that knows those of today.

An artifact that was made from other samples than those here is passed over. Cards are read, media
are neither decoded nor verified. Without artifacts the sources are asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from uni_moe.artifacts import CARD, Layout, read_card
from uni_moe.config import Params, PlaygroundSource, SentencesSource
from uni_moe.config import Source as SourceParams
from uni_moe.data.sources import open_source
from uni_moe.data.validated import read_quarantine
from uni_moe.errors import UniMoeError
from uni_moe.outlook.kinship import is_judged, is_prepared
from uni_moe.records import MODALITIES, SPLITS

COUNTED_BYTES = 200_000_000  # a list of records that is longer is not read for a plan
Known = Literal["corpus", "contract", "manifest"]


@dataclass(frozen=True)
class Samples:
    """Where one modality's samples are.

    listed = the sum of `splits` + quarantined + removed, once a contract has judged them. `splits`
    counts training, validation and test; the last two are held out. `known_from` says which
    artifact was read.
    """

    known_from: Known
    listed: int
    splits: Mapping[str, int]
    quarantined: Mapping[str, int] = field(default_factory=dict)  # reasons -> samples
    removed: int = 0
    problems: Mapping[str, int] = field(default_factory=dict)  # code -> samples, not judged yet

    def to_json(self) -> dict[str, Any]:
        """Return the counts as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class SourceCount:
    """How many records a source lists; None where they were not counted, and why."""

    records: int | None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the count as a JSON object."""
        return asdict(self)


def samples_here(layout: Layout) -> dict[str, Samples]:
    """Return what is known of each modality's samples; nothing of those not ingested here."""
    found = {modality: _of(layout, modality) for modality in MODALITIES}
    return {modality: samples for modality, samples in found.items() if samples is not None}


def count_sources(params: Params, root: Path) -> dict[str, SourceCount]:
    """Ask each source how many records it lists."""
    return {source.name: _count(source, root) for source in params.sources}


def _of(layout: Layout, modality: str) -> Samples | None:
    if not (layout.samples(modality) / CARD).is_file():
        return None
    listed = read_card(layout.samples(modality)).results
    removed = listed["taken_out"]
    whole = listed["listed"] + removed
    if not is_judged(layout, modality):
        return Samples(
            "manifest", whole, _splits(listed["splits"]), {}, removed, listed["problems"]
        )
    quarantine = read_quarantine(layout.validated(modality))
    refused = Counter(row["reasons"] for row in quarantine)
    if not is_prepared(layout, modality):
        gone = Counter(row["split"] for row in quarantine)
        left = Counter(listed["splits"]) - gone
        return Samples("contract", whole, _splits(left), dict(sorted(refused.items())), removed)
    told = read_card(layout.corpus(modality)).results
    whole = sum(told["listed"].values()) + sum(told["removed"].values())
    splits, removed = told["splits"], sum(told["removed"].values())
    return Samples("corpus", whole, splits, dict(sorted(refused.items())), removed)


def _splits(counts: Mapping[str, int]) -> dict[str, int]:
    return {split: counts.get(split, 0) for split in SPLITS}


def _count(source: SourceParams, root: Path) -> SourceCount:
    if not isinstance(source, PlaygroundSource | SentencesSource):
        path = root / source.path
        if not path.exists():
            return SourceCount(None, f"{source.path} is not here")
        size = path.stat().st_size if path.is_file() else 0
        if size > COUNTED_BYTES:
            return SourceCount(None, f"{source.path} has {size / 1e9:.1f} GB and is not read here")
    try:
        return SourceCount(len(open_source(source, root)))
    except UniMoeError as error:
        return SourceCount(None, error.what)
