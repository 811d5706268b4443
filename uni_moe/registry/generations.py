"""The data that a model was made from, or that lies in artifacts/ now: its tables and their counts.

All is told by cards, so it takes as long for a million samples as for ten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout, read_card
from uni_moe.errors import LineageError
from uni_moe.registry.cards import artifact_folders
from uni_moe.registry.database import reading
from uni_moe.registry.neighbourhood import above_of
from uni_moe.registry.reach import DATA
from uni_moe.registry.tables import ArtifactRow
from uni_moe.storage.blobs import LocalFolder

STEPS = 6  # from a model to the samples, by the longest way through phases
_EXPOSURE = "exposure"
_BEGINNING = "samples"  # nothing was made before


@dataclass(frozen=True)
class Member:
    """An artifact of a generation, as its card tells of it."""

    id: str
    name: str
    stage: str
    kind: str
    params: Mapping[str, Any]
    results: Mapping[str, Any]

    @property
    def part(self) -> str:
        """The last part of its name: the modality of a table of samples."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True)
class Generation:
    """Tables of samples, and what learned from them; `model` is None of what is in artifacts/."""

    model: str | None
    members: tuple[Member, ...]
    is_cut: bool = False  # more was made from than is looked at: data may be missing

    def of(self, kind: str) -> dict[str, Member]:
        """Return the members of a kind by modality."""
        return {one.part: one for one in self.members if one.kind == kind}

    @property
    def phases(self) -> tuple[Member, ...]:
        """The members that learned and keep account of it, by their names."""
        return tuple(one for one in self.members if one.results.get(_EXPOSURE))


def generation(layout: Layout, model: str | None) -> Generation:
    """Return the data of a model by its id; None takes what lies in artifacts/."""
    if model is None:
        return Generation(None, _sorted(_here(layout)))
    with reading(layout) as session:
        found, is_cut = _of(session, model)
        return Generation(model, _sorted(found), is_cut)


def folder_of(layout: Layout, member: Member) -> Path | None:
    """Return the folder that holds a member's own files, in artifacts/ or in the store."""
    here = layout.root / member.name
    try:
        if read_card(here).id == member.id:
            return here
    except LineageError:
        pass
    store = LocalFolder(layout.store)
    kept = f"seen/{member.id}"
    return store.place(kept) if store.has(kept) else None


def _here(layout: Layout) -> Iterable[Member]:
    for folder in artifact_folders(layout.artifacts):
        card = read_card(folder)
        yield Member(
            card.id, layout.name_of(folder), card.stage, card.kind, card.params, card.results
        )


def _of(session: Session, model: str) -> tuple[Iterable[Member], bool]:
    """Return the nearest artifact of each name above a model, and whether the walk was cut."""
    far = above_of(session, model, STEPS)
    ids = sorted(far)
    found: dict[str, Member] = {}
    is_cut = False
    for start in range(0, len(ids), 500):
        rows = select(ArtifactRow).where(ArtifactRow.id.in_(ids[start : start + 500]))
        for row in session.scalars(rows):
            one = Member(row.id, row.name, row.stage, row.kind, row.params, row.results)
            is_cut |= far[one.id] == STEPS and one.kind != _BEGINNING
            nearest = found.get(row.name)
            if nearest is None or far[one.id] < far[nearest.id]:
                found[row.name] = one
    return found.values(), is_cut


def _sorted(members: Iterable[Member]) -> tuple[Member, ...]:
    told = [one for one in members if one.kind in DATA or one.results.get(_EXPOSURE)]
    return tuple(sorted(told, key=lambda one: one.name))
