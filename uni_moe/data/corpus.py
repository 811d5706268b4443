"""The corpus of one modality: accepted samples, and just their media, in shards by split."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from uni_moe.artifacts import read_card, verified_card
from uni_moe.data.captions import caption_sample, conversations
from uni_moe.data.manifest import FILE, count_by_source, sample_of
from uni_moe.data.shards import ShardReader, ShardWriter
from uni_moe.data.tombstones import FILE as TOMBSTONES
from uni_moe.data.tombstones import Tombstone, read_tombstones, refused_ones, write_tombstones
from uni_moe.data.validated import QUARANTINE, read_accepted, read_quarantine
from uni_moe.errors import LineageError
from uni_moe.records import SPLITS, Card, MediaRef, Sample, canonical_json, source_of
from uni_moe.stage import StageContext

__all__ = ["Corpus", "caption_sample", "conversations", "counts_of", "open_corpus", "prepare"]


def prepare(ctx: StageContext) -> None:
    """Write the corpus of the modality that the stage's name holds: `prepare@image`.

    Captions are not stored: `captions.conversations` derives them. Of samples that were taken out
    or refused there are tombstones.

    Raises:
        LineageError: the accepted samples were judged from other samples than those here.
    """
    samples, validated = ctx.layout.samples(ctx.item), ctx.layout.validated(ctx.item)
    _check_kinship(samples, validated, ctx.layout.name_of(samples))
    with ctx.artifact(
        ctx.layout.corpus(ctx.item),
        kind="corpus",
        params={"modality": ctx.item},
        parents=(samples, validated),
    ) as draft:
        accepted = [sample_of(row) for row in read_accepted(validated)]
        shards = ShardReader(samples)
        for split in SPLITS:
            chosen = sorted((s for s in accepted if s.split == split), key=lambda s: s.key)
            _write_split(draft.folder, split, chosen, shards)
        taken_out = read_tombstones(samples / TOMBSTONES)
        refused = refused_ones(read_quarantine(validated))
        write_tombstones(draft.folder / TOMBSTONES, [*taken_out, *refused])
        draft.results |= counts_of(accepted)
        draft.results["listed"] = count_by_source(samples / FILE)
        draft.results["quarantined"] = count_by_source(validated / QUARANTINE)
        removed = Counter(source_of(one.key) for one in taken_out)
        draft.results["removed"] = dict(sorted(removed.items()))
        ctx.run.event("prepared", modality=ctx.item, **draft.results)


def counts_of(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return how many samples there are by split, and by split in each source and task."""
    splits = Counter(sample.split for sample in samples)
    return {
        "splits": {split: splits[split] for split in SPLITS},
        "sources": _by_split((sample.source, sample.split) for sample in samples),
        "tasks": _by_split((sample.task, sample.split) for sample in samples),
    }


class Corpus:
    """Reads one modality's corpus. Safe in threads and after a fork: no file stays open."""

    def __init__(self, folder: Path, card: Card) -> None:
        self.folder = folder
        self.card = card
        self._shards = ShardReader(folder)

    def samples(self, split: str) -> list[Sample]:
        """Return a split's samples, sorted by key."""
        assert split in SPLITS, f"{split} is no split"
        with (self.folder / f"{split}.jsonl").open(encoding="utf-8", newline="\n") as lines:
            return [Sample.from_json(json.loads(line)) for line in lines]

    def tombstones(self, split: str) -> list[Tombstone]:
        """Return what is left of the split's samples that were taken out or refused."""
        assert split in SPLITS, f"{split} is no split"
        return [one for one in read_tombstones(self.folder / TOMBSTONES) if one.split == split]

    def media(self, ref: MediaRef) -> list[bytes]:
        """Return the files of one piece of media, in order.

        Raises:
            LineageError: the shard or a member is not there.
        """
        return self._shards.read(ref)

    def close(self) -> None:
        """Let go of the shards' indices."""
        self._shards = ShardReader(self.folder)


def open_corpus(folder: Path) -> Corpus:
    """Open a corpus after checking every file of it against its card.

    Raises:
        LineageError: it is absent, changed, or no corpus.
    """
    card = verified_card(folder)
    if card.kind != "corpus":
        raise LineageError(
            f"{folder} is no corpus but {card.kind!r}.",
            cause="another artifact's folder was given.",
            remedy="give the folder that the stage `prepare` wrote.",
        )
    return Corpus(folder, card)


def _check_kinship(samples: Path, validated: Path, name: str) -> None:
    if read_card(validated).parents.get(name) != read_card(samples).id:
        raise LineageError(
            f"{validated} was judged from other samples than those in {samples}.",
            cause="ingest ran again and validate did not.",
            remedy="run `dvc repro validate`, then this stage again.",
        )


def _write_split(folder: Path, split: str, samples: Iterable[Sample], shards: ShardReader) -> None:
    """Write a split's samples and media; shards are named after the split."""
    drawer = folder / split
    drawer.mkdir()
    writer = ShardWriter(drawer)
    with (folder / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as lines:
        for sample in samples:
            media = tuple(_copy(sample.key, ref, split, shards, writer) for ref in sample.media)
            lines.write(canonical_json(replace(sample, media=media).to_json()) + "\n")
    writer.close()
    for shard in sorted(drawer.iterdir()):
        shard.rename(folder / _shard_name(split, shard.name))
    drawer.rmdir()


def _copy(
    key: str, ref: MediaRef, split: str, shards: ShardReader, writer: ShardWriter
) -> MediaRef:
    files = shards.read(ref)
    hashes = [hashlib.sha256(data).hexdigest() for data in files]
    shard, members = writer.add(key, files, hashes, ref.members)
    return replace(ref, shard=_shard_name(split, shard), members=members)


def _shard_name(split: str, name: str) -> str:
    """Return `media-train-KEY.tar` for `media-KEY.tar`."""
    kind, _, number = name.partition("-")
    return f"{kind}-{split}-{number}"


def _by_split(pairs: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Return for each name how often it stands beside each split."""
    found = Counter(pairs)
    names = sorted({name for name, _ in found})
    return {name: {split: found[name, split] for split in SPLITS} for name in names}
