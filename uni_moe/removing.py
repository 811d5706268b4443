"""Takes samples out for good: a tombstone for each, so that no other sample changes its place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from uni_moe.artifacts import Layout
from uni_moe.config import Params
from uni_moe.data.captions import Task, conversations
from uni_moe.data.manifest import FILE as MANIFEST
from uni_moe.data.manifest import read_manifest, sample_of
from uni_moe.data.tombstones import (
    FILE,
    Tombstone,
    read_tombstones,
    tombstone_of,
    write_tombstones,
)
from uni_moe.errors import ConfigError, DataError, bullets
from uni_moe.extent import Extent
from uni_moe.leftovers import Leftover, clear_leftovers, leftovers
from uni_moe.lengths import extent_of_sample
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.records import MODALITIES, Sample
from uni_moe.train.measures import processor_here

_TASKS: tuple[Task, ...] = ("answer", "caption")


def take_out(
    layout: Layout, params: Params, keys: Collection[str], subjects: Collection[str] = ()
) -> list[Tombstone]:
    """Write tombstones of samples, chosen by key or by whose they are; return those that are new.

    No stage may run meanwhile, nor another removal: see `alone.nobody_else`.

    Raises:
        DataError: there is no such sample, or nobody's; all that are not there at once.
    """
    file = layout.root / params.raw / FILE
    before = {one.key: one for one in read_tombstones(file)}
    rows = _all_rows(layout)
    known = {*before, *(row["key"] for row in rows)}
    owners = {row["subject"] for row in rows}
    missing = [*sorted(set(keys) - known), *sorted(set(subjects) - owners)]
    if missing:
        raise DataError(
            f"No ingested sample is or belongs to:{bullets(missing)}",
            cause="the manifest of this workspace lists no such key or subject.",
            remedy="write keys as source/name, as `artifacts/samples` has them; ingest first.",
        )
    chosen = [row for row in rows if row["key"] in keys or row["subject"] in subjects]
    processor = processor_here(layout, params)
    new = [
        tombstone_of(row, _extents(row, processor, params), refused=False)
        for row in chosen
        if row["key"] not in before
    ]
    write_tombstones(file, [*before.values(), *new])
    return new


def clean_up(layout: Layout, params: Params) -> tuple[list[str], list[Leftover]]:
    """Clear what is safe to clear of samples that went and that manifests here still list.

    Returns what was cleared, and what holds them still. No stage may run meanwhile.
    """
    taken_out = {one.key for one in read_tombstones(layout.root / params.raw / FILE)}
    gone: list[Mapping[str, Any]] = []
    rest: list[Mapping[str, Any]] = []
    for row in _all_rows(layout):
        (gone if row["key"] in taken_out else rest).append(row)
    if not gone:
        return [], []
    return clear_leftovers(layout, gone, rest), leftovers(layout, gone, rest)


def _all_rows(layout: Layout) -> list[Mapping[str, Any]]:
    folders = [layout.samples(name) for name in MODALITIES]
    return [row for one in folders if (one / MANIFEST).is_file() for row in read_manifest(one)]


def _extents(
    row: Mapping[str, Any], processor: UniMoeProcessor | None, params: Params
) -> dict[Task, Extent]:
    """Return how long a sample's conversations are; nothing where nobody can measure it here.

    What no phase could draw takes no position: a record with problems, a sound that is too long.
    """
    if row["problem_codes"] is not None:
        return dict.fromkeys(_TASKS, Extent(0))
    sample, found = sample_of(row), {}
    if processor is None or not all(processor.rows_each(ref.kind) for ref in sample.media):
        return {}
    for task in _TASKS:
        with suppress(ConfigError):  # without a prompt nobody asks for a caption
            for one in conversations([sample], (task,), params.prepare.caption_prompts):
                found[task] = _extent(processor, one)
    return found


def _extent(processor: UniMoeProcessor, sample: Sample) -> Extent:
    try:
        return extent_of_sample(processor, sample)
    except DataError:
        return Extent(0)
