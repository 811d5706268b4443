"""What samples are in: every corpus, checkpoint, export and report, and what to run without them.

How far they reach, and how that is known, is decided by `reach`; this file asks the index.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout, read_card
from uni_moe.registry.asked import Asked, meant
from uni_moe.registry.cards import artifact_folders
from uni_moe.registry.database import reading
from uni_moe.registry.graph import Artifact, above, below, reached, versions_of
from uni_moe.registry.holdings import Draws
from uni_moe.registry.reach import How, Reached, reach
from uni_moe.registry.rerun import Again, again
from uni_moe.registry.samples import about
from uni_moe.registry.sightings import Told, sightings, with_tables
from uni_moe.registry.tables import ArtifactRow, EdgeRow, RunArtifactRow, champion_id
from uni_moe.registry.tables_data import HolderRow

_MOST = 5_000  # values that one statement names
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Touched:
    """An artifact that the samples are in, how that is known, and what it is today.

    `through` holds the ids of what it has them from. `versions` are its numbers as a registered
    model; `is_here` says that it lies in the workspace. `places` are the folders outside that it
    was written to.
    """

    id: str
    name: str
    stage: str | None
    kind: str | None
    how: How
    samples: int | None
    draws: Draws | None
    through: tuple[str, ...]
    versions: tuple[int, ...]
    is_live: bool
    is_here: bool
    places: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        draws = None if self.draws is None else self.draws._asdict()
        return {**asdict(self), "draws": draws}


@dataclass(frozen=True)
class Impact:
    """What samples are in, artifacts behind those they were made from.

    `keys` are the first samples' keys. `spared` are the ids of artifacts whose ledgers prove that
    they never drew them. `unknown` are versions of whose data no manifest is kept: nothing can be
    said of them. `again` tells what would run without the samples: of what lies in artifacts/, and
    of the champion.
    """

    asked: Asked
    samples: int
    keys: tuple[str, ...]
    touched: tuple[Touched, ...]
    spared: tuple[str, ...]
    unknown: tuple[int, ...]
    again: tuple[Again, ...]

    @property
    def versions(self) -> tuple[int, ...]:
        """The registered versions that the samples are in."""
        return tuple(sorted({number for one in self.touched for number in one.versions}))

    @property
    def live(self) -> int | None:
        """The champion's number, if the samples are in it."""
        return next((one.versions[0] for one in self.touched if one.is_live and one.versions), None)

    def to_json(self) -> dict[str, Any]:
        """Return the answer as a JSON object."""
        return {
            "asked": asdict(self.asked),
            "samples": self.samples,
            "keys": list(self.keys),
            "versions": list(self.versions),
            "live": self.live,
            "unknown": list(self.unknown),
            "touched": [one.to_json() for one in self.touched],
            "spared": list(self.spared),
            "again": [asdict(one) for one in self.again],
        }


def impact(layout: Layout, asked: Asked) -> Impact:
    """Return what samples are in, as far as the index knows.

    Raises:
        UnknownError: something names no sample, or several.
        LineageError: a card in artifacts/ cannot be read.
    """
    here = {read_card(one).id: layout.name_of(one) for one in artifact_folders(layout.artifacts)}
    with reading(layout, data=True) as session:
        return answered(session, asked, here)


def answered(session: Session, asked: Asked, here: Mapping[str, str]) -> Impact:
    """Return what samples are in; `here` holds the artifacts of the workspace, id -> name."""
    numbers = meant(session, asked)
    hits, spared = reached_by(session, numbers)
    live = champion_id(session)
    touched = _today(session, hits, live, here)
    hit = {one.id for one in touched}
    families = {"artifacts/": above(session, list(here))}
    families |= {"the champion": above(session, [live])} if live is not None else {}
    return Impact(
        asked=asked,
        samples=len(numbers),
        keys=tuple(dict.fromkeys(row.key for row in about(session, numbers[:_SHOWN]))),
        touched=touched,
        spared=tuple(one.id for one in spared),
        unknown=untold_versions(session, hit),
        again=tuple(again(of, family, hit) for of, family in families.items() if family),
    )


def reached_by(session: Session, numbers: Sequence[int]) -> tuple[list[Reached], list[Artifact]]:
    """Return what samples reach, and what is spared."""
    told = sightings(session, numbers)
    graph = _in_question(session, told)
    return reach(graph, told, with_tables(session, _untold(graph, told)))


def _in_question(session: Session, told: Told) -> dict[str, Artifact]:
    """Return all that was made from what tells of the samples; nearly all from the same data."""
    manifests = [one for one, tables in told.items() if {"accepted", "refused"} & tables.keys()]
    graph = reached(session, _parents(session, manifests))
    others = reached(session, [one for one in told if one not in graph])
    for one in others.values():
        parents = {**one.parents, **(graph[one.id].parents if one.id in graph else {})}
        graph[one.id] = replace(one, parents=parents)
    return graph


def _untold(graph: Mapping[str, Artifact], told: Told) -> list[str]:
    """Return the artifacts of which it matters whether a table is known that tells nothing."""
    return [
        one.id
        for one in graph.values()
        if one.id not in told and one.kind not in ("samples", "corpus", "report", "export")
    ]


def _today(
    session: Session, hits: Sequence[Reached], live: str | None, here: Mapping[str, str]
) -> tuple[Touched, ...]:
    models = [one.artifact.id for one in hits if one.artifact.kind == "model"]
    numbers = versions_of(session, models)
    outside = _outside(session, [one.artifact.id for one in hits if one.artifact.name[:1] == "/"])
    return tuple(
        Touched(
            id=one.artifact.id,
            name=one.artifact.name,
            stage=one.artifact.stage,
            kind=one.artifact.kind,
            how=one.how,
            samples=one.samples,
            draws=one.draws,
            through=one.through,
            versions=numbers.get(one.artifact.id, ()),
            is_live=one.artifact.id == live,
            is_here=one.artifact.id in here,
            places=tuple(outside.get(one.artifact.id, ())),
        )
        for one in hits
    )


def _outside(session: Session, ids: Sequence[str]) -> dict[str, list[str]]:
    """Return all folders outside the workspace that these were written to."""
    found: dict[str, list[str]] = {}
    rows = select(RunArtifactRow.artifact, RunArtifactRow.name).distinct()
    for start in range(0, len(ids), _MOST):
        part = rows.where(RunArtifactRow.artifact.in_(ids[start : start + _MOST]))
        for artifact, name in session.execute(part.order_by(RunArtifactRow.name)):
            found.setdefault(artifact, []).append(name)
    return found


def _parents(session: Session, children: Sequence[str]) -> list[str]:
    found: set[str] = set()
    for start in range(0, len(children), _MOST):
        part = children[start : start + _MOST]
        found |= set(session.scalars(select(EdgeRow.parent).where(EdgeRow.child.in_(part))))
    return sorted(found)


def untold_versions(session: Session, hit: Collection[str]) -> tuple[int, ...]:
    """Return the versions with data that no manifest tells of, and that are not hit anyway."""
    accepted = exists().where(HolderRow.artifact == ArtifactRow.id, HolderRow.what == "accepted")
    dark = select(ArtifactRow.id).where(ArtifactRow.kind == "validated", ~accepted)
    graph = below(session, list(session.scalars(dark)))
    numbers = versions_of(session, [one for one in graph if one not in hit])
    return tuple(sorted({number for own in numbers.values() for number in own}))
