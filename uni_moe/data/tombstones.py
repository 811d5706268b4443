"""Tombstones: what is left of a sample that went, so that no other sample changes its place.

A sample goes when an operator takes it out (a line in `FILE`, which lies in the folder `raw`) or
when it is refused. A tombstone holds its key and what its places follow from, none of its content.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from uni_moe.artifacts import write_text
from uni_moe.data.captions import Task, carrier
from uni_moe.errors import DataError, bullets
from uni_moe.extent import Extent
from uni_moe.records import (
    CAPTION,
    MEDIA_KINDS,
    MODALITIES,
    SPLITS,
    MediaKind,
    canonical_json,
    modality_of,
)

FILE = "tombstones.jsonl"


@dataclass(frozen=True)
class Hole:
    """A conversation that is drawn no more: its key, its media's kinds, how long it was.

    `extent` is None where nobody measured it when it went.
    """

    key: str
    kinds: tuple[MediaKind, ...]
    extent: Extent | None


@dataclass(frozen=True)
class Tombstone:
    """What is left of a sample.

    `split` is None where its source named one that there is none: it was never drawn.
    `caption` is the kind of media whose caption or transcript it asked for, None without.
    `extents` says how long its conversations were, where that was measured when it went.
    """

    key: str
    split: str | None
    kinds: tuple[MediaKind, ...] = ()
    caption: MediaKind | None = None
    extents: Mapping[Task, Extent] = field(default_factory=dict)
    refused: bool = False

    @property
    def modality(self) -> str:
        """The modality of its corpus."""
        return modality_of(self.kinds)

    def holes(self, tasks: Sequence[Task]) -> Iterator[Hole]:
        """Give the conversations that these tasks would draw."""
        if "answer" in tasks:
            yield Hole(self.key, self.kinds, self.extents.get("answer"))
        if "caption" in tasks and self.caption is not None:
            yield Hole(self.key + CAPTION, (self.caption,), self.extents.get("caption"))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object without absent fields."""
        extents = {task: asdict(extent) for task, extent in self.extents.items()}
        told = {"caption": self.caption, "extents": extents, "refused": self.refused}
        return {"key": self.key, "split": self.split, "kinds": list(self.kinds)} | {
            name: value for name, value in told.items() if value
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tombstone:
        """Read what `to_json` wrote.

        Raises:
            ValueError: it says what no tombstone says.
        """
        extents = {task: _extent(told) for task, told in data.get("extents", {}).items()}
        found = cls(**{**data, "kinds": tuple(data["kinds"]), "extents": extents})
        strange = {*found.kinds, found.caption} - {*MEDIA_KINDS, None}
        if strange or found.split not in (*SPLITS, None):
            raise ValueError(f"no kind of media or no split: {[*strange, found.split]}")
        return found


def tombstone_of(
    row: Mapping[str, Any], extents: Mapping[Task, Extent], *, refused: bool
) -> Tombstone:
    """Return what is left of a row of a manifest."""
    kinds = tuple(kind for kind in MEDIA_KINDS if row[f"n_{kind}"])
    shown = carrier(kinds, row["caption"], row["transcript"])
    return Tombstone(
        key=row["key"],
        split=row["split"] if row["split"] in SPLITS else None,
        kinds=kinds,
        caption=None if shown is None or row["split"] == "test" else shown[0],
        extents=extents,
        refused=refused,
    )


def refused_ones(quarantine: Iterable[Mapping[str, Any]]) -> list[Tombstone]:
    """Return what is left of refused rows of which enough is known to have had a place.

    How long they were is not known: there is no tokenizer yet, and media may be broken.
    """
    return [
        tombstone_of(row, {}, refused=True)
        for row in quarantine
        if row["n_media"] is not None and row["split"] in SPLITS
    ]


def read_tombstones(path: Path) -> list[Tombstone]:
    """Read a file of tombstones; none where there is no file.

    Raises:
        DataError: lists all lines that are none, and keys that stand twice.
    """
    return _parsed(path, path.read_text(encoding="utf-8")) if path.is_file() else []


def write_tombstones(path: Path, tombstones: Collection[Tombstone]) -> None:
    """Write tombstones, sorted by key; no file where there are none.

    Raises:
        DataError: what would be written could not be read; the file stays as it was.
    """
    if tombstones:
        ordered = sorted(tombstones, key=lambda one: one.key)
        text = "".join(canonical_json(one.to_json()) + "\n" for one in ordered)
        assert _parsed(path, text) == ordered, "tombstones do not come back as they are"
        write_text(path, text)


def _parsed(path: Path, text: str) -> list[Tombstone]:
    found: dict[str, Tombstone] = {}
    problems = []
    lines = (
        text.removesuffix("\n").split("\n") if text else []
    )  # a key may hold other ends of lines
    for number, line in enumerate(lines, 1):
        try:
            one = Tombstone.from_json(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problems.append(f"line {number}: {error}")
            continue
        if one.key in found:
            problems.append(f"line {number}: {one.key} stands twice")
        found[one.key] = one
    if problems:
        raise DataError(
            f"{path} is no list of samples that went:{bullets(problems)}",
            cause="it was written by hand, or cut.",
            remedy="let `uni-moe remove KEY` write it.",
        )
    return list(found.values())


def _extent(told: Mapping[str, Any]) -> Extent:
    return Extent(told["positions"], tuple((first, count) for first, count in told["media"]))


def by_modality(tombstones: Iterable[Tombstone]) -> dict[str, list[Tombstone]]:
    """Return tombstones by the modality of their corpus."""
    found: dict[str, list[Tombstone]] = {modality: [] for modality in MODALITIES}
    for one in tombstones:
        found[one.modality].append(one)
    return found
