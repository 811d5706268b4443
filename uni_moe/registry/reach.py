"""How far samples reach through the graph, and how that is known. Pure.

Where an artifact keeps a ledger, the ledger says whether it learned from a sample. Where it keeps
none, what its corpora hold may have been seen: held, not proven seen. What was made from either is
in question, too. An artifact whose ledger proves that it never drew the samples, and that was made
from nothing that did, is spared.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from uni_moe.registry.graph import Artifact, in_order
from uni_moe.registry.holdings import Draws
from uni_moe.registry.sightings import Sighting

How = Literal["listed", "refused", "accepted", "learned", "judged", "held", "made from"]
DATA = ("samples", "validated", "corpus", "contract_report")  # kinds that nothing is learned in


@dataclass(frozen=True, slots=True)
class Reached:
    """An artifact that samples are in, and how that is known.

    `samples` counts them where a table does. `draws` is told by a ledger. `through` names the
    artifacts that it has them from.
    """

    artifact: Artifact
    how: How
    samples: int | None = None
    draws: Draws | None = None
    through: tuple[str, ...] = ()


def reach(
    graph: Mapping[str, Artifact],
    told: Mapping[str, Mapping[str, Sighting]],
    known: Collection[tuple[str, str]],
) -> tuple[list[Reached], list[Artifact]]:
    """Return what the samples reach, parents first, and what is spared.

    Args:
        graph: the artifacts in question, by id.
        told: the tables that hold some of the samples.
        known: every table of these artifacts that is known, as (artifact, what).
    """
    found: dict[str, Reached] = {}
    spared: list[Artifact] = []
    listed = {
        parent
        for one, tables in told.items()
        if one in graph and {"accepted", "refused"} & tables.keys()
        for parent in graph[one].parents.values()
    }
    for one in in_order(graph):
        own = told.get(one.id, {})
        if one.kind == "samples":
            hit = Reached(one, "listed") if one.id in listed else None
        elif one.kind in DATA:
            hit = _of_data(one, own, found, known)
        else:
            hit = _of_learning(one, own, found, known)
            if hit is None and any(parent in found for parent in one.parents.values()):
                spared.append(one)
        if hit is not None:
            found[one.id] = hit
    return list(found.values()), spared


def _of_data(
    one: Artifact,
    own: Mapping[str, Sighting],
    found: Mapping[str, Reached],
    known: Collection[tuple[str, str]],
) -> Reached | None:
    """Say how a manifest, a corpus or a contract's report has the samples."""
    for what in ("accepted", "refused"):
        if what in own:
            return Reached(one, what, own[what].samples)
    through = [found[parent] for parent in one.parents.values() if parent in found]
    if not through or (one.id, "accepted") in known:
        return None
    names = tuple(hit.artifact.id for hit in through)
    if one.kind == "contract_report":
        return Reached(one, "listed", None, None, names)
    judged = [hit for hit in through if hit.artifact.kind == "validated"]
    if one.kind == "validated":
        return Reached(one, "held", None, None, names)  # which it accepted is not known
    for hit in judged:
        if hit.how in ("accepted", "held"):
            return Reached(one, hit.how, hit.samples, None, (hit.artifact.id,))
    return None


def _of_learning(
    one: Artifact,
    own: Mapping[str, Sighting],
    found: Mapping[str, Reached],
    known: Collection[tuple[str, str]],
) -> Reached | None:
    """Say how what was trained, assembled, exported or judged has the samples."""
    through = [found[parent] for parent in one.parents.values() if parent in found]
    corpora = [hit for hit in through if hit.artifact.kind == "corpus"]
    others = [hit for hit in through if hit.artifact.kind not in DATA]
    names = tuple(hit.artifact.id for hit in (*corpora, *others))
    for what in ("learned", "judged"):
        if what in own:
            draws = own[what].draws if what == "learned" else None
            return Reached(one, what, own[what].samples, draws, names)
    if corpora and (one.id, "learned") not in known:
        return Reached(one, "held", None, None, names)
    return Reached(one, "made from", None, None, names) if others else None
