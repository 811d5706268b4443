"""A registered model goes for good, here and wherever it was copied to.

The audit log is told first: the model's absence is in order from then on. A tombstone tells the
remote: a push removes the model there, a pull brings it no more.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable

from uni_moe.artifacts import Layout, read_json
from uni_moe.audit import FORGOTTEN, Asked, Telling
from uni_moe.audit_log import append, sound_log
from uni_moe.errors import GateError, LineageError
from uni_moe.registry import read
from uni_moe.registry.cards import all_cards
from uni_moe.registry.decisions import turn, turn_at_work
from uni_moe.registry.removals import FORGETTING
from uni_moe.registry.seen import drop_seen
from uni_moe.registry.tombstones import (
    FILE,
    TOMBSTONES,
    Tombstone,
    raise_tombstone,
    standing,
    tombstone_of,
    tombstones_in,
)
from uni_moe.storage.blobs import LocalFolder


def forget(layout: Layout, model: str, asked: Asked) -> read.Version:
    """Remove what the store keeps of a registered model; return it.

    These are weights, reports, cards, and manifests and ledgers that no other model's lineage has.

    Its number and the decisions about it stay: they fell. What a process that died left is removed
    by a second call. The next push removes it from the remote, too. Not covered: the artifacts of
    the road, and DVC's data in cache and remote, which `uni-moe gc` frees.

    Raises:
        GateError: it is the champion; nothing is changed.
        LineageError: no model or several have this name, nothing is kept of it, or the audit log is
            broken; nothing is changed.
    """
    with turn(layout):
        version = read.find(layout, model)
        if version.is_champion:
            raise GateError(
                f"Version {version.number} is the champion.",
                cause="a workspace does not lose the model that it answers with.",
                remedy="promote another one first, or take the way back: `uni-moe rollback`.",
            )
        drop_seen(layout, all_cards(layout))  # who died while it forgot may have left some
        if not version.folder.is_dir() and not _is_elsewhere(layout, version.model):
            raise LineageError(
                f"The store keeps nothing of version {version.number}.",
                cause="it was forgotten before.",
                remedy="nothing is left to do here; `uni-moe audit show` tells who forgot it.",
            )
        evidence = {FORGOTTEN: layout.name_of(version.folder)}
        entry = append(layout, Telling(FORGETTING, asked.who, asked.why, version.model, evidence))
        raise_tombstone(layout, tombstone_of("forgotten", version.model, entry), entry)
        if version.folder.is_dir():
            shutil.rmtree(version.folder)
        drop_seen(layout, all_cards(layout))
    return version


def obey(layout: Layout, stones: Iterable[Tombstone], say: Callable[[str], None]) -> None:
    """Remove models that another machine forgot; what is the champion here is told and stays.

    Also where no model is left to remove, what tells of artifacts in no kept lineage goes: who died
    while it forgot may have left some. Whoever fetched the tombstones is at work here.

    Raises:
        LineageError: the audit log is broken, a tombstone was changed, or a card cannot be read;
            nothing more is removed.
    """
    forgotten = [one for one in stones if one.kind == "forgotten"]
    with turn_at_work(layout):
        if any((layout.store / one.model).is_dir() for one in forgotten):
            _remove(layout, forgotten, say)
        drop_seen(layout, all_cards(layout))


def _remove(layout: Layout, forgotten: Iterable[Tombstone], say: Callable[[str], None]) -> None:
    entries = sound_log(layout).entries
    known = {entry.hash[:12] for entry in entries}
    for one in standing(forgotten, entries):
        version = read.version_of(layout, one.model)
        if version is not None and version.is_champion:
            say(
                f"note: version {version.number} was forgotten elsewhere; it stays, because it "
                "is the champion here"
            )
        elif (layout.store / one.model).is_dir():
            if one.entry not in known:
                _tell(layout, one)
            shutil.rmtree(layout.store / one.model)
            say(f"forgotten elsewhere, and removed here: {one.model[:12]}")


def _tell(layout: Layout, one: Tombstone) -> None:
    """Tell our log of a forgetting that only another one tells of."""
    told = read_json(LocalFolder(layout.store).place(one.key) / FILE)
    evidence = {FORGOTTEN: layout.name_of(layout.store / one.model), "tombstone": told}
    append(layout, Telling(FORGETTING, told["who"], told["why"], one.model, evidence))


def _is_elsewhere(layout: Layout, model: str) -> bool:
    """Say whether a model that is not here may be in a remote: nobody forgot it yet."""
    stones = tombstones_in(LocalFolder(layout.store).keys(TOMBSTONES))
    gone = standing(stones, sound_log(layout).entries)
    return not any(one.kind == "forgotten" and one.model == model for one in gone)
