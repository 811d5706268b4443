"""Tombstones: what was removed for good stays away, wherever its bytes might come back from.

One is a key of a store like any other, `tombstones/KIND-MODEL-ENTRY`, and travels as such. It
names the entry of the audit log that tells who removed the model and why. `forgotten` covers all
that a store keeps of a model, `retired` its weights alone. A model that the log registers after
that entry has left its tombstone behind.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from uni_moe.artifacts import Layout, read_json, write_json
from uni_moe.audit import Entry
from uni_moe.storage.blobs import BlobStore, LocalFolder

TOMBSTONES = "tombstones/"
FILE = "tombstone.json"
Kind = Literal["forgotten", "retired"]
SHAPE = rf"{TOMBSTONES}(forgotten|retired)-([0-9a-f]{{64}})-([0-9a-f]{{12}})"
_KEY = re.compile(SHAPE)


@dataclass(frozen=True)
class Tombstone:
    """What its key says: what went, of which model, and which entry of the audit log tells it."""

    kind: Kind
    model: str
    entry: str  # the first twelve letters of its hash

    @property
    def key(self) -> str:
        """The key that it is kept under."""
        return f"{TOMBSTONES}{self.kind}-{self.model}-{self.entry}"

    def covers(self, key: str) -> bool:
        """Say whether what a store keeps under a key is to go."""
        if self.kind == "retired":
            return key == f"{self.model}/model"
        return key.startswith(f"{self.model}/")


def tombstone_of(kind: Kind, model: str, entry: Entry) -> Tombstone:
    """Return the tombstone of a model that an entry tells of."""
    return Tombstone(kind, model, entry.hash[:12])


def raise_tombstone(layout: Layout, one: Tombstone, told: Entry) -> None:
    """Keep a tombstone in a workspace's own store.

    Raises:
        StoreError: the disk has no room.
    """
    layout.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.state, prefix="sent-") as name:
        facts = {"kind": one.kind, "model": one.model, "entry": told.hash, "at": told.at}
        write_json(Path(name) / FILE, {**facts, "who": told.who, "why": told.why})
        LocalFolder(layout.store).put_folder(one.key, Path(name))


def tombstones_in(keys: Iterable[str]) -> list[Tombstone]:
    """Return the tombstones among the keys of a store, in order."""
    found = (_KEY.fullmatch(key) for key in sorted(keys))
    return [Tombstone(cast("Kind", one[1]), one[2], one[3]) for one in found if one is not None]


def standing(stones: Iterable[Tombstone], log: Sequence[Entry]) -> list[Tombstone]:
    """Return the tombstones of models that were not registered again since. Pure."""
    place = {entry.hash[:12]: entry.sequence for entry in log}
    registered = {e.subject: e.sequence for e in log if e.event == "registration"}
    return [
        one for one in stones if not registered.get(one.model, 0) > place.get(one.entry, 1 << 62)
    ]


def covered(key: str, stones: Iterable[Tombstone]) -> bool:
    """Say whether one of these tombstones covers a key."""
    return any(one.covers(key) for one in stones)


def inscription(store: BlobStore, layout: Layout, one: Tombstone) -> dict[str, Any]:
    """Return what a tombstone in a store says: who removed the model, when and why.

    Raises:
        LineageError: what the store keeps was changed.
        StoreError: the store cannot be reached or refuses, or our disk has no room.
    """
    local = LocalFolder(layout.store)
    local.take(one.key, store)
    told: dict[str, Any] = read_json(local.place(one.key) / FILE)
    return told
