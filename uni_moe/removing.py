"""Takes samples out for good: a tombstone for each, so that no other sample changes its place.

Nothing is deleted here but from what is trained on next: the record and its media are taken out of
the source by whoever owns it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uni_moe.artifacts import Layout
from uni_moe.audit import Telling
from uni_moe.audit_log import append
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
from uni_moe.errors import DataError, bullets
from uni_moe.lengths import encoded_of
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.records import MODALITIES

_TASKS: tuple[Task, ...] = ("answer", "caption")


@dataclass(frozen=True)
class Wish:
    """Whose samples shall go or which ones, who says so, and why."""

    keys: Collection[str]
    who: str
    why: str
    subjects: Collection[str] = ()


def take_out(layout: Layout, params: Params, wish: Wish) -> list[Tombstone]:
    """Write tombstones of samples, chosen by key or by whose they are; return those that are new.

    The audit log is told of them first; a subject's name is not written there.

    Raises:
        LineageError: the audit log is broken; nothing is written.
        DataError: there is no such sample, or nobody's; all that are not there at once.
    """
    file = layout.root / params.raw / FILE
    before = {one.key: one for one in read_tombstones(file)}
    rows = [row for name in MODALITIES for row in _rows(layout.samples(name))]
    known = {*before, *(row["key"] for row in rows)}
    owners = {row["subject"] for row in rows}
    missing = [*sorted(set(wish.keys) - known), *sorted(set(wish.subjects) - owners)]
    if missing:
        raise DataError(
            f"No ingested sample is or belongs to:{bullets(missing)}",
            cause="the manifest of this workspace lists no such key or subject.",
            remedy="write keys as source/name, as `artifacts/samples` has them; ingest first.",
        )
    chosen = [row for row in rows if row["key"] in wish.keys or row["subject"] in wish.subjects]
    processor = _processor(layout)
    new = [
        tombstone_of(row, _positions(row, processor, params), refused=False)
        for row in chosen
        if row["key"] not in before
    ]
    if new:
        evidence = {"keys": [one.key for one in new], "tombstones": f"{params.raw}/{FILE}"}
        append(layout, Telling("removal", wish.who, wish.why, None, evidence))
    write_tombstones(file, [*before.values(), *new])
    return new


def _rows(folder: Path) -> Sequence[Mapping[str, Any]]:
    return read_manifest(folder) if (folder / MANIFEST).is_file() else []


def _processor(layout: Layout) -> UniMoeProcessor | None:
    """Return the processor of the model that was trained here, if there is one."""
    for folder in (layout.model, layout.assembled):
        if (folder / "processor_config.json").is_file():
            found: UniMoeProcessor = UniMoeProcessor.from_pretrained(folder, local_files_only=True)
            return found
    return None


def _positions(
    row: Mapping[str, Any], processor: UniMoeProcessor | None, params: Params
) -> dict[Task, int]:
    """Return how long a sample's conversations are; nothing where nobody could have drawn them."""
    if processor is None or row["problem_codes"] is not None:
        return {}
    sample, found = sample_of(row), {}
    for task in _TASKS:
        for one in conversations([sample], (task,), params.prepare.caption_prompts):
            found[task] = len(encoded_of(processor, one)[0].input_ids)
    return found
