"""What still holds samples that were taken out: the safe part is cleared, the rest is told.

Safe is what is only ever made again or never used again: features that nobody else needs, and the
states of unfinished trainings, which no training can go on from once its inputs are others. What
holds results (artifacts, registered models, the source itself) is told with what clears it.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uni_moe.artifacts import CARD, Layout, read_card, remove_whole
from uni_moe.data.exposures import FILE as LEDGER
from uni_moe.data.exposures import holds
from uni_moe.data.features import feature_folder
from uni_moe.data.kept_features import forget_features
from uni_moe.data.manifest import media_of
from uni_moe.data.validated import ACCEPTED, QUARANTINE
from uni_moe.errors import LineageError
from uni_moe.machine import load_machine
from uni_moe.records import source_of
from uni_moe.registry.cards import all_cards, reachable
from uni_moe.registry.read import models
from uni_moe.registry.seen import SEEN
from uni_moe.storage.remote import read_remote
from uni_moe.train.foundation import CORPORA
from uni_moe.train.state import trainings_in

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Leftover:
    """Something that holds a sample still, and what a person does about it."""

    what: str
    remedy: str


def clear_leftovers(layout: Layout, gone: Sequence[Row], rest: Sequence[Row]) -> list[str]:
    """Remove what is safe to remove of samples that went, and say what that was.

    No stage may run meanwhile. Features of media that other samples have, too, stay theirs.

    Args:
        layout: the workspace.
        gone: the manifest's rows of the samples that went.
        rest: all its other rows.
    """
    cleared = []
    needed = {ref.content for row in rest for ref in media_of(row)}
    contents = {ref.content for row in gone for ref in media_of(row)} - needed
    root = feature_folder(layout, load_machine(layout.root).features)
    if count := forget_features(root, contents):
        cleared.append(f"{count} feature(s) in {root}")
    for folder in _unfinished(layout, gone):
        remove_whole(folder)
        cleared.append(f"the unfinished training {layout.name_of(folder)}")
    if layout.apart.exists():  # artifacts and trainings of scheduled runs
        remove_whole(layout.apart)
        cleared.append(f"the workspaces of scheduled runs in {layout.name_of(layout.apart)}")
    return cleared


def leftovers(layout: Layout, gone: Sequence[Row], rest: Sequence[Row]) -> list[Leftover]:
    """Return what holds samples that went when all is cleared that is safe to clear.

    Args:
        layout: the workspace.
        gone: the manifest's rows of the samples that went.
        rest: all its other rows.
    """
    found = []
    if others := _same(gone, rest):
        found.append(
            Leftover(
                f"the same content under other keys: {', '.join(others)}",
                f"uni-moe remove {shlex.join(others)}",
            )
        )
    if made := _made_from(layout, {row["modality"] for row in gone}):
        found.append(Leftover(f"artifacts here: {', '.join(made)}", "uni-moe run"))
    if (layout.root / ".dvc").is_dir():
        found.append(Leftover("earlier artifacts in DVC's cache", "uni-moe gc --yes, after that"))
    if remote := read_remote(layout.root):
        found.append(
            Leftover(
                f"copies of all this in the remote {remote.text()}",
                "after the others, uni-moe push and uni-moe gc --remote --yes",
            )
        )
    found += _versions(layout, {row["key"] for row in gone})
    for source in sorted({source_of(row["key"]) for row in gone}):
        found.append(
            Leftover(
                f"the source {source}, where it is not generated",
                "delete the record and its media there; of several samples made of one record, put "
                "null in the place of this one: their names count places",
            )
        )
    return found


def _same(gone: Sequence[Row], rest: Sequence[Row]) -> list[str]:
    """Return the keys of other samples with the same conversation or some of the same media."""
    ids = {row["id"] for row in gone}
    media = {ref.sha256 for row in gone for ref in media_of(row)}
    return [
        row["key"]
        for row in rest
        if row["id"] in ids or any(ref.sha256 in media for ref in media_of(row))
    ]


def _unfinished(layout: Layout, gone: Sequence[Row]) -> Iterator[Path]:
    """Give the folders of training states that have learned from samples that went."""
    keys, modalities = {row["key"] for row in gone}, {row["modality"] for row in gone}
    for folder in trainings_in(layout.state, "*"):
        name, _, part = folder.name.rpartition("-")[0].partition("@")
        if name == "foundation":
            learned = bool(modalities & set(CORPORA[part]))
        else:
            parts = sorted(folder.glob("ledger/part-*"))
            half_gone = not folder.is_dir()  # the process that removed it was killed
            learned = half_gone or any(_may_hold(part, keys) for part in parts)
        if learned:
            yield folder


def _may_hold(file: Path, keys: Collection[str]) -> bool:
    """Say whether a ledger holds one of these samples; one that cannot be read may."""
    try:
        return holds(file, keys)
    except LineageError:
        return True


def _made_from(layout: Layout, modalities: Collection[str]) -> list[str]:
    """Return the names of artifacts that were made from these modalities' samples, and those."""
    cards = {
        layout.name_of(file.parent): read_card(file.parent)
        for file in sorted(layout.artifacts.rglob(CARD))
    }
    found = {layout.name_of(layout.samples(name)) for name in modalities} & set(cards)
    while more := {n for n, card in cards.items() if found & set(card.parents)} - found:
        found |= more
    return sorted(found)


def _versions(layout: Layout, keys: Collection[str]) -> Iterator[Leftover]:
    """Tell registered models that learned from samples, may have, or keep their records."""
    known = all_cards(layout)
    for version in models(layout):
        if not version.folder.is_dir():
            continue
        family = reachable(known, version.model)
        trained = [one for one in family if known[one][1].stage.partition("@")[0] in _PHASES]
        folders = {one: layout.store / SEEN / one for one in family}
        folders[version.model] = version.model_folder
        ledgers = [folders[one] / LEDGER for one in trained]
        manifests = [folders[one] / table for one in family for table in (ACCEPTED, QUARANTINE)]
        if any(_may_hold(file, keys) for file in ledgers if file.is_file()):
            said = "learned from it"
        elif not trained or not all(file.is_file() for file in ledgers):
            said = "may have, in a phase whose ledger is not kept"
        elif any(_may_hold(file, keys) for file in manifests if file.is_file()):
            said = "never drew it and keeps its record in a manifest"
        else:
            continue
        place = layout.name_of(version.folder)
        yield Leftover(
            f"the registered version {version.number} {said}: {place}",
            f"train and promote one without it, then uni-moe forget {version.number} --why TEXT",
        )


_PHASES = ("align", "experts", "tune")
