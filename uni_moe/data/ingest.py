"""Ingest: every record of every source becomes a row of a manifest, its media are packed in shards.

Nothing is judged here and nothing is dropped: what is wrong with a record stands in its row. There
is one artifact per modality, so a touched record of one leaves the bytes of the others as they are.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from uni_moe.artifacts import Draft
from uni_moe.config import Params, Split
from uni_moe.data.manifest import COLUMNS, Row, row_of, write_manifest
from uni_moe.data.media import Facts, measure
from uni_moe.data.shards import ShardWriter
from uni_moe.data.sources import dataset_of, open_sources
from uni_moe.data.sources.base import RawMedia, RawSample, unique_names
from uni_moe.data.sources.problems import Problem
from uni_moe.data.split import split_of
from uni_moe.data.tombstones import FILE as TOMBSTONES
from uni_moe.data.tombstones import Tombstone, by_modality, read_tombstones, write_tombstones
from uni_moe.errors import DataError
from uni_moe.progress import progress
from uni_moe.records import (
    MODALITIES,
    MediaRef,
    Sample,
    canonical_json,
    modality_of,
    sample_id,
    sha256_text,
    source_of,
)
from uni_moe.stage import StageContext


def ingest(ctx: StageContext) -> None:
    """Read all sources and write one artifact of samples per modality, also where it is empty.

    Samples that an operator took out are not read, whether or not their source still lists them.

    Raises:
        DataError: a source as a whole, or the list of samples taken out, cannot be read.
    """
    sources = open_sources(ctx.params.sources, ctx.layout.root)
    names = {source.name for source in sources}
    taken_out = [
        one
        for one in read_tombstones(ctx.layout.root / ctx.params.raw / TOMBSTONES)
        if source_of(one.key) in names
    ]
    gone = {one.key for one in taken_out}
    reader = _Reader()
    with ExitStack() as stack:
        desks = {
            modality: _Desk(
                stack.enter_context(
                    ctx.artifact(
                        ctx.layout.samples(modality),
                        kind="samples",
                        params=params_of(ctx.params, modality),
                        parents=(),
                    )
                )
            )
            for modality in MODALITIES
        }
        for source in sources:
            samples = progress(
                unique_names(source.samples()),
                title=f"ingest {source.name}",
                total=len(source),
                unit="sample",
            )
            for raw in samples:
                if f"{source.name}/{raw.name}" in gone:
                    continue
                desk = desks[modality_of(media.kind for media in raw.media)]
                desk.take(source.name, raw, reader, ctx.params.split)
        for modality, left in by_modality(taken_out).items():
            desk = desks[modality]
            desk.finish(left)
            ctx.run.event("ingested", modality=modality, **desk.draft.results)
        _tell_what_was_read(ctx, [row for desk in desks.values() for row in desk.rows])


def _tell_what_was_read(ctx: StageContext, rows: Sequence[Row]) -> None:
    """Record each source with a hash of the samples that it gave: their ids cover all content."""
    told: dict[str, list[str]] = {source.name: [] for source in ctx.params.sources}
    for row in rows:
        told[row["source"]].append(f"{row['key']}\t{row['id']}\n")
    for source in ctx.params.sources:
        namespace, name = dataset_of(source, ctx.layout.root)
        version = sha256_text("".join(sorted(told[source.name])))
        ctx.run.read(name, version, namespace=namespace)


def params_of(params: Params, modality: str) -> dict[str, Any]:
    """Return what one modality's samples depend on: of playground counts only its own."""
    sources = params.section("sources")["sources"]
    for source in sources:
        if source["kind"] == "playground":
            counts = source["train"]
            source["train"] = {key: counts[key] for key in counts if key == modality}
    return {"sources": sources, "split": params.section("split")}


@dataclass(frozen=True)
class _Read:
    """Media that were read: the files, their hashes, and the facts or the problem."""

    files: tuple[bytes, ...] = ()
    sha256: tuple[str, ...] = ()
    facts: Facts | None = None
    problem: Problem | None = None

    @property
    def hash(self) -> str:
        """The hash of the one file, or of the hashes of several."""
        return self.sha256[0] if len(self.sha256) == 1 else sha256_text("".join(self.sha256))


class _Reader:
    """Reads and measures media; the same content is measured once."""

    def __init__(self) -> None:
        self._measured: dict[tuple[object, ...], Facts | Problem] = {}

    def read(self, media: RawMedia) -> _Read:
        """Read one piece of media, or tell its problem."""
        if media.problem is not None:
            return _Read(problem=media.problem)
        try:
            files = tuple(load() for load in media.members)
        except OSError as error:
            name = ", ".join(media.names[:2])
            return _Read(problem=Problem("missing_media", f"{name}: {error.strerror}"))
        sha256 = tuple(hashlib.sha256(data).hexdigest() for data in files)
        known = (media.kind, sha256, media.gap_ms, media.frames)
        if known not in self._measured:
            self._measured[known] = _measured(media, files)
        found = self._measured[known]
        if isinstance(found, Problem):
            return _Read(files, sha256, problem=found)
        return _Read(files, sha256, facts=found)


def _measured(media: RawMedia, files: tuple[bytes, ...]) -> Facts | Problem:
    try:
        return measure(media.kind, files, gap_ms=media.gap_ms, frames=media.frames)
    except DataError as error:
        name = ", ".join(media.names[:2])
        return Problem("undecodable_media", f"{name}: {error.what} {error.cause}")


@dataclass
class _Desk:
    """Where the samples of one modality are written down."""

    draft: Draft
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shards = ShardWriter(self.draft.folder)

    def take(self, source: str, raw: RawSample, reader: _Reader, shares: Split) -> None:
        """Write one sample down and pack its media."""
        reads = [reader.read(media) for media in raw.media]
        refs = tuple(
            self._pack(f"{source}/{raw.name}", media, read)
            for media, read in zip(raw.media, reads, strict=True)
            if read.facts is not None
        )
        self.rows.append(_row(source, raw, reads, refs, shares))

    def finish(self, taken_out: Sequence[Tombstone]) -> None:
        """Write the manifest, what is left of samples taken out, and the results."""
        self.shards.close()
        write_manifest(self.draft.folder, self.rows)
        write_tombstones(self.draft.folder / TOMBSTONES, taken_out)
        codes = Counter(
            code for row in self.rows for code in (row["problem_codes"] or "").split(",") if code
        )
        self.draft.results |= {
            "listed": len(self.rows),
            "taken_out": len(taken_out),
            "with_problems": sum(row["problem_codes"] is not None for row in self.rows),
            "problems": dict(sorted(codes.items())),
            "sources": dict(sorted(Counter(row["source"] for row in self.rows).items())),
            "licenses": dict(sorted(Counter(str(row["license"]) for row in self.rows).items())),
            "splits": dict(sorted(Counter(row["split"] for row in self.rows).items())),
            "media_bytes": sum(row["media_bytes"] or 0 for row in self.rows),
        }

    def _pack(self, key: str, media: RawMedia, read: _Read) -> MediaRef:
        shard, members = self.shards.add(key, read.files, read.sha256, media.names)
        assert read.facts is not None
        return MediaRef(
            kind=media.kind,
            sha256=read.hash,
            members=members,
            size_bytes=sum(map(len, read.files)),
            shard=shard,
            gap_ms=media.gap_ms,
            frames=media.frames,
            track=media.track,
            duration_s=read.facts.duration_s,
        )


def _row(
    source: str, raw: RawSample, reads: list[_Read], refs: tuple[MediaRef, ...], shares: Split
) -> Row:
    key = f"{source}/{raw.name}"
    found = [read for read in reads if read.sha256]
    sample = Sample(
        key=key,
        id=sample_id(raw.turns, [read.hash for read in found]),
        source=source,
        split=raw.split or split_of(key, shares),
        modality=modality_of(media.kind for media in raw.media),
        task=raw.task,
        turns=raw.turns,
        media=refs,
        license=raw.license,
        subject=raw.subject,
        caption=raw.caption,
        transcript=raw.transcript,
        choices=raw.choices,
        metric=raw.metric,
        group=raw.group,
    )
    problems = [*raw.problems, *(read.problem for read in reads if read.problem)]
    row = row_of(sample) | {
        "problem_codes": ",".join(sorted({problem.code for problem in problems})) or None,
        "problem_details": canonical_json([problem.detail for problem in problems])
        if problems
        else None,
    }
    if raw.raw is not None:
        return _unreadable(row, raw.raw)
    return row | _facts(raw, reads)


def _unreadable(row: Row, text: str) -> Row:
    """Return the row of a record of which nothing is known but that it is there."""
    kept = (
        "key",
        "source",
        "split",
        "modality",
        "conversation",
        "media",
        "problem_codes",
        "problem_details",
    )
    nothing = dict.fromkeys(COLUMNS)
    return nothing | {name: row[name] for name in kept} | {"id": sha256_text(text)}


def _facts(raw: RawSample, reads: list[_Read]) -> Row:
    """Return what was counted and measured of a sample's media."""
    kinds = [media.kind for media in raw.media]
    slots = [kind for turn in raw.turns for kind in turn.slots]
    facts = [read.facts for read in reads if read.facts is not None]
    return {
        "n_media": len(kinds),
        **{f"n_{kind}": kinds.count(kind) for kind in MODALITIES[1:]},  # type: ignore[arg-type] # all but text
        "slots_match": slots == kinds,
        "media_found": all(read.sha256 for read in reads),
        "decode_ok": all(read.facts is not None for read in reads),
        "media_bytes": sum(len(data) for read in reads for data in read.files),
        "media_sha256": ",".join(read.hash for read in reads if read.sha256) or None,
        "width_px": _least(facts, "width_px"),
        "widest_px": _most(facts, "width_px"),
        "height_px": _least(facts, "height_px"),
        "highest_px": _most(facts, "height_px"),
        "frames": _least(facts, "frames"),
        "sample_rate_hz": _least(facts, "sample_rate_hz"),
        "highest_rate_hz": _most(facts, "sample_rate_hz"),
        "duration_s": _most(facts, "duration_s"),
        "shortest_s": _least(facts, "duration_s"),
        "channels": _most(facts, "channels"),
        "codec": ",".join(dict.fromkeys(fact.codec for fact in facts)) or None,
    }


def _known(facts: list[Facts], name: str) -> Iterator[Any]:
    return (value for fact in facts if (value := getattr(fact, name)) is not None)


def _least(facts: list[Facts], name: str) -> Any:  # noqa: ANN401 - a number or None
    return min(_known(facts, name), default=None)


def _most(facts: list[Facts], name: str) -> Any:  # noqa: ANN401 - a number or None
    return max(_known(facts, name), default=None)
